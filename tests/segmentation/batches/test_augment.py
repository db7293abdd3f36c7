"""Training pipelines against recorded runs of the original: draws and labels exact, pixels within one level."""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.random import RandomState

from internimage.data.label_maps.label_map import plain_values, zero_is_nothing
from internimage.data.label_maps.layouts import mapillary_values
from internimage.errors import MissingExtra
from internimage.segmentation.batches import photometric
from internimage.segmentation.batches.augment import PUBLISHED, Augmentation, _is_mixed
from internimage.segmentation.batches.batches import collate
from internimage.segmentation.batches.photometric import Photometric, distort
from internimage.segmentation.loss import mask_targets
from tests.parity import seeding

PARITY = Path(__file__).parents[2] / "parity" / "data"
RECORDED = np.load(PARITY / "training" / "pipeline_segmentation.npz")
FACTS = json.loads(gzip.decompress((PARITY / "training" / "pipeline_segmentation.json.gz").read_bytes()))
STD = np.array([58.395, 57.12, 57.375])
# Our name of each recorded pipeline, and whether the 0 of its masks means "nothing".
PIPELINES = {
    "ade512": ("ade20k_512x512", True),
    "ade640": ("ade20k_640x640", True),
    "ade896": ("ade20k_896x896", True),
    "city512x1024": ("cityscapes_512x1024", False),
    "city1024": ("cityscapes_1024x1024", False),
    "mapillary512x1024": ("mapillary_512x1024", False),
    "mapillary896": ("mapillary_896x896", False),
    "stuff164k": ("coco_stuff_164k_896x896", False),
    "stuff10k": ("coco_stuff_10k_512x512", True),
    "pascal480": ("pascal_context_480x480", True),
    "nyu480": ("nyu_480x480", True),
}


class Listed(RandomState):
    """Keeps every draw as [name, arguments, result]."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.draws: list[list[Any]] = []

    def _keep(self, name: str, arguments: tuple[Any, ...], value: Any) -> Any:
        self.draws.append([name, list(arguments), value])
        return value

    def random_sample(self) -> Any:  # type: ignore[override]
        return self._keep("random_sample", (), super().random_sample())

    def rand(self) -> Any:  # type: ignore[override]
        return self._keep("rand", (), super().random_sample())

    def randint(self, *arguments: Any) -> Any:  # type: ignore[override]
        return self._keep("randint", arguments, int(super().randint(*arguments)))

    def uniform(self, *arguments: Any) -> Any:  # type: ignore[override]
        return self._keep("uniform", arguments, float(super().uniform(*arguments)))


def sampled(array: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    flat = array.reshape(-1)
    index = np.unique(np.linspace(0, flat.size - 1, min(points, flat.size)).astype(np.int64))
    return flat[index], index


@pytest.mark.parametrize("run", FACTS["runs"], ids=lambda run: run["tag"])
def test_published_pipelines(run: dict[str, Any]) -> None:
    tag, pipeline = run["tag"], run["pipeline"].removesuffix("_mask")
    name, starts_at_one = PIPELINES[pipeline]
    is_mapillary = pipeline.startswith("mapillary")
    stored = RECORDED[f"label.{'ann66' if is_mapillary else 'ann'}.{run['image']}"]
    values = mapillary_values() if is_mapillary else zero_is_nothing(20) if starts_at_one else plain_values(20)
    label_map = np.array(values.table)[stored].astype(np.uint8)
    if is_mapillary:  # the original takes the value 255, which these masks never hold, for a road
        label_map[stored == 255] = 0
    facts, random = FACTS["photos"][run["image"]], Listed(run["seed"])
    sample = PUBLISHED[name](seeding.photo(facts["seed"], facts["height"], facts["width"]), label_map, random)
    assert random.draws == run["draws"]
    assert list(sample.image.shape) == run["img_shape"]

    images, targets = collate([sample], size_hw=PUBLISHED[name].crop_hw)
    pixels, labels = images.pixels[0].contiguous().numpy(), targets[0].numpy()
    assert list(pixels.shape) == RECORDED[f"{tag}.img.shape"].tolist()
    found, index = sampled(pixels, 1024)
    gray_levels = np.abs(found - RECORDED[f"{tag}.img.value"]) * STD[index // labels.size]
    assert gray_levels.max() < 1.01 and (gray_levels > 0.01).mean() < 0.005
    np.testing.assert_array_equal(sampled(labels, 2048)[0], RECORDED[f"{tag}.seg.value"])
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=256), RECORDED[f"{tag}.seg.histogram"])
    if run["pipeline"].endswith("_mask"):
        masks = mask_targets(targets[0])
        np.testing.assert_array_equal(masks.labels, RECORDED[f"{tag}.mask_labels"])
        np.testing.assert_array_equal(masks.masks.sum(dim=(1, 2)), RECORDED[f"{tag}.mask_area"])


def scene(height: int = 48, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    label_map = np.repeat(np.arange(width, dtype=np.uint8)[None] // 20, height, axis=0)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8), label_map


@pytest.mark.parametrize(("ratio", "crop_hw"), [(1.7, (33, 40)), (0.5, (16, 20)), (1.0, (20, 99)), (0.05, (1, 2))])
def test_a_crop_is_part_of_the_resized_image(ratio: float, crop_hw: tuple[int, int]) -> None:
    """Only the crop is computed; its numbers are those of the whole."""
    image, label_map = scene()
    plain = Augmentation(crop_hw=None, ratio_range=(ratio, ratio), flip_probability=0, photometric=None)
    cropped = dataclasses.replace(plain, crop_hw=crop_hw)
    whole = plain(image, label_map, RandomState(3))
    random = Listed(3)
    part = cropped(image, label_map, random)
    region = tuple(slice(draw[2], draw[2] + side) for draw, side in zip(random.draws[-3:-1], crop_hw, strict=True))
    assert part.label_map.shape == tuple(min(a, b) for a, b in zip(crop_hw, whole.label_map.shape, strict=True))
    np.testing.assert_array_equal(part.image, whole.image[region])
    np.testing.assert_array_equal(part.label_map, whole.label_map[region])


def test_own_pipelines_flip_image_and_labels_together() -> None:
    image, label_map = scene()
    turned = Augmentation(
        crop_hw=None, ratio_range=(1, 1), flip_probability=1, vertical_flip_probability=1, photometric=None
    )(image, label_map, RandomState(0))
    np.testing.assert_array_equal(turned.image, image[::-1, ::-1])
    np.testing.assert_array_equal(turned.label_map, label_map[::-1, ::-1])


def test_crops_of_one_class_are_drawn_again() -> None:
    labels = np.array([[0, 0, 0, 1], [255, 255, 255, 255]], dtype=np.uint8)
    assert not _is_mixed(labels, 0.75) and _is_mixed(labels, 0.76)
    assert not _is_mixed(np.full((2, 2), 255, np.uint8), 0.75) and not _is_mixed(np.zeros((2, 2), np.uint8), 0.75)
    image, label_map = scene()
    random = Listed(0)
    Augmentation(crop_hw=(4, 4), ratio_range=(1, 1), photometric=None)(image, label_map * 0, random)
    assert len(random.draws) == 1 + 2 * 11 + 1  # ratio, eleven crops, flip


def test_colors_are_those_of_opencv() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 333, 3), dtype=np.uint8)[:, ::-1]
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) - 7) % 180
    np.testing.assert_array_equal(photometric._change_color(image, None, -7), cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def test_without_opencv_only_colors_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    photometric.opencv.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    image, still = np.zeros((4, 4, 3), dtype=np.uint8), Photometric()
    with pytest.raises(MissingExtra, match=r"internimage\[train\]"):
        for seed in range(20):
            distort(image, still, RandomState(seed))
    for seed in range(20):
        distort(image[..., :2], still, RandomState(seed))  # neither hue nor saturation


def test_colors_that_are_not_moved_stay() -> None:
    gray = np.full((3, 3, 3), 77, dtype=np.uint8)
    still = Photometric(brightness=0, contrast=(1, 1), saturation=(1, 1), hue=0)
    for seed in range(20):
        np.testing.assert_array_equal(distort(gray, still, RandomState(seed)), gray)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crop_hw": (0, 5)}, "crop_hw"),
        ({"scale": (5, 0)}, "scale"),
        ({"ratio_range": (2, 1)}, "ratio_range"),
        ({"flip_probability": 1.5}, "flip_probability"),
        ({"category_limit": 0}, "category_limit"),
    ],
)
def test_settings_without_sense_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Augmentation(**change)
    for values in ({"brightness": -1}, {"contrast": (2, 1)}, {"hue": 91}):
        with pytest.raises(ValueError, match=next(iter(values))):
            Photometric(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one size"):
        Augmentation()(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), RandomState(0))


def test_batches_are_padded_after_normalization() -> None:
    image, label_map = scene(30, 40)
    still = Augmentation(crop_hw=None, ratio_range=(1, 1), flip_probability=0, photometric=None)
    samples = [still(image, label_map, RandomState(0)), still(*scene(50, 20), RandomState(0))]
    images, targets = collate(samples)
    assert images.pixels.shape == (2, 3, 64, 64) and targets.shape == (2, 64, 64) and targets.dtype == torch.uint8
    assert images.valid_hw.tolist() == [[30, 40], [50, 20]] and images.original_hw == ((30, 40), (50, 20))
    assert not images.pixels[0, :, 30:].any() and (targets[0, :, 40:] == 255).all() and (targets[0, 30:] == 255).all()
    expected = (image[0, 0] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(images.pixels[0, :, 0, 0], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="crop"):
        collate(samples, size_hw=(32, 64))
