"""Images to pixels: sizes, padding, recorded values of the original, extreme shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.detection import DetectionPreprocess
from internimage.detection.original.settings import preprocess_from_pipeline
from internimage.detection.preprocess import prepare
from tests.parity import seeding

CASE = Path(__file__).parents[1] / "parity" / "data" / "cases" / "preprocess_detection"


@pytest.mark.parametrize("key", ["rcnn.480x360", "rcnn.33x500", "dino_h.256x256"])
def test_recorded_pixels(key: str) -> None:
    manifest = json.loads((CASE / "manifest.json").read_text())
    stored = np.load(CASE / "outputs.npz")
    result = next(r for r in manifest["results"] if r["key"] == key)
    config = preprocess_from_pipeline(manifest["config"]["test_pipelines"][result["pipeline"]])
    images = prepare([seeding.photo(manifest["seed"], *result["photo"])], config)
    assert list(images.pixels.shape[1:]) == result["input"]
    assert images.valid_hw.tolist() == [result["img_shape"][:2]]
    values = images.pixels[0].reshape(-1)[torch.from_numpy(stored[f"{key}.index"])]
    np.testing.assert_allclose(values, stored[f"{key}.value"], atol=1e-5)


def test_a_batch_is_padded_to_its_largest_image_with_zeros_and_stays_channels_last() -> None:
    config = DetectionPreprocess(shorter_side=40, longer_side=64)
    images = prepare([np.full((20, 30, 3), 255, np.uint8), np.full((30, 20, 3), 255, np.uint8)], config)
    assert tuple(images.pixels.shape) == (2, 3, 64, 64)
    assert images.valid_hw.tolist() == [[40, 60], [60, 40]] and images.original_hw == ((20, 30), (30, 20))
    assert images.pixels.is_contiguous(memory_format=torch.channels_last)
    assert (images.pixels[0, :, 40:] == 0).all() and (images.pixels[0, :, :40, :60] > 0).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 400), (3000, 2)])
def test_extreme_shapes(size_hw: tuple[int, int]) -> None:
    images = prepare([np.zeros((*size_hw, 3), np.uint8)], DetectionPreprocess(shorter_side=64, longer_side=96))
    height, width = images.valid_hw[0].tolist()
    assert 1 <= min(height, width) <= 64 and max(height, width) <= 96


def test_no_images_and_bad_settings() -> None:
    assert len(prepare([], DetectionPreprocess())) == 0
    for settings in (
        {"shorter_side": 0},
        {"shorter_side": 900, "longer_side": 800},
        {"divisor": 0},
        {"std": (1, 0, 1)},
    ):
        with pytest.raises(ValueError, match="given"):
            DetectionPreprocess(**settings)  # type: ignore[arg-type]
