"""Huge JPEG files are decoded at a smaller size where a model needs less; what it answers is about the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.classification.preprocess import ClassificationPreprocess, prepare
from internimage.classification.training.procedure import TRAINING
from internimage.data.images import image_file
from internimage.data.images.image_file import decode_reduced
from internimage.data.images.raster import RGB, Raster, Reading
from internimage.data.images.read import read_image
from internimage.detection import DetectionPreprocess
from internimage.detection.preprocess import prepare as prepare_detection
from internimage.segmentation import SegmentationPreprocess
from internimage.segmentation.preprocess import prepare as prepare_segmentation
from internimage.training import RECIPES


@pytest.fixture
def smooth(tmp_path: Path) -> Path:
    """A JPEG file of 640 x 960 with soft shapes, turned by its EXIF tag: upright it is 960 high and 640 wide."""
    y, x = np.mgrid[:640, :960] / 100
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    return tmp_path / "a.jpg"


def needs(height: int, width: int) -> image_file.NetworkSize:
    return lambda _: (height, width)


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        ((960, 640), (960, 640)),
        ((241, 100), (960, 640)),
        ((240, 160), (480, 320)),
        ((120, 80), (240, 160)),
        ((9, 6), (120, 80)),
    ],
)
def test_only_where_each_side_is_four_times_what_is_needed(
    smooth: Path, monkeypatch: pytest.MonkeyPatch, need: tuple[int, int], expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(image_file, "REDUCED_FROM_PIXELS", 500_000)
    image, original_hw = decode_reduced(smooth, needs(*need))
    assert original_hw == (960, 640) and (image.height, image.width) == expected


def test_ordinary_sizes_and_other_formats_are_decoded_whole(smooth: Path, tmp_path: Path) -> None:
    assert decode_reduced(smooth, needs(9, 6))[0].size == (640, 960)  # far below the bound of 32 megapixels
    PIL.Image.open(smooth).save(tmp_path / "a.png")
    assert isinstance(read_image(tmp_path / "a.png", RGB, network_hw=needs(9, 6)), PIL.Image.Image)


def test_every_task_sees_nearly_the_same(smooth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = (
        (prepare, ClassificationPreprocess(64)),
        (prepare_detection, DetectionPreprocess(shorter_side=64, longer_side=128)),
        (prepare_segmentation, SegmentationPreprocess(scale=(128, 64))),
    )
    for read, config in configs:
        whole = read([smooth], config)
        with monkeypatch.context() as patch:
            patch.setattr(image_file, "REDUCED_FROM_PIXELS", 500_000)
            image = read_image(smooth, config.reading, network_hw=config.network_hw)
            assert isinstance(image, Raster) and image.size < (640, 960) and image.original_hw == (960, 640)
            reduced = read([smooth], config)
        assert reduced.original_hw == whole.original_hw == ((960, 640),)
        assert torch.equal(reduced.valid_hw, whole.valid_hw)
        torch.testing.assert_close(reduced.pixels, whole.pixels, atol=0.15, rtol=0)


def test_a_huge_file_is_reduced_for_a_classifier(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    PIL.Image.new("L", (8000, 4001), 77).save(path)
    image = read_image(path, RGB, network_hw=ClassificationPreprocess(224).network_hw)
    assert isinstance(image, Raster) and image.original_hw == (4001, 8000) and image.size == (1000, 501)
    assert image.pixels.min() == image.pixels.max() == 77


def test_a_shorter_side_that_is_enough(smooth: Path) -> None:
    """640 x 960, upright 960 x 640: never below the side, and only at a half, a quarter or an eighth."""
    whole = read_image(smooth)
    for side, expected in (
        (641, (640, 960)),
        (321, (640, 960)),
        (320, (320, 480)),
        (200, (320, 480)),
        (81, (160, 240)),
    ):
        image = read_image(smooth, Reading(decode_side=side))
        assert isinstance(image, PIL.Image.Image) and image.size == expected
        close = np.asarray(whole.resize(expected)).astype(int) - np.asarray(image)
        assert np.abs(close).mean() < 2
    with pytest.raises(ValueError, match="decode_side must be at least 1, given 0"):
        Reading(decode_side=0)


def test_training_alone_decodes_at_a_smaller_size(smooth: Path, tmp_path: Path) -> None:
    for i in range(4):
        path = tmp_path / "set" / "train" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(smooth.read_bytes())
    overrides = ("data.decode_side=100", "data.holdout=2", "data.batch_size=2")
    recipe = RECIPES["internimage_pico_fashion"].with_overrides(overrides)
    whole, own = TRAINING.open(recipe, tmp_path / "set", test_stands_in=False)
    train_set, val_set = TRAINING.divided(recipe, whole, own)
    assert TRAINING.read(recipe, train_set)[0].image.size == (160, 240)
    assert val_set[0].image.size == train_set[0].image.size == (640, 960)
