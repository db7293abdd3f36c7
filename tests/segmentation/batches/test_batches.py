from __future__ import annotations

import sys

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.data import Sample
from internimage.errors import MissingExtra
from internimage.parallel import own_rows
from internimage.segmentation.batches import photometric
from internimage.segmentation.batches.augment import Augmentation
from internimage.segmentation.batches.batches import SegmentationBatches
from tests.processes import be_process


class Numbered:
    """A data set whose image `i` is gray `i`, half class 0 and half class 1; some are broken."""

    class_names = ("left", "right")

    def __init__(self, length: int = 11, broken: tuple[int, ...] = ()) -> None:
        self.length, self.broken = length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample[np.ndarray]:
        if index in self.broken:
            raise ValueError(f"{index}.png is broken")
        label_map = np.repeat(np.array([[0, 1]], dtype=np.uint8), 20, axis=0).repeat(15, axis=1)
        return Sample(PIL.Image.new("RGB", (30, 20), (index,) * 3), label_map, f"{index}.png")


SMALL = Augmentation(crop_hw=(16, 16), photometric=None)


def test_an_epoch_follows_from_the_seed_and_can_be_taken_up() -> None:
    batches = SegmentationBatches(Numbered(), SMALL, batch_size=3, seed=7)
    assert batches.batches_per_epoch == 3 and batches.order(0).shape == (3, 3)
    assert len(set(batches.order(0).ravel())) == 9
    assert (batches.order(0) != batches.order(1)).any()
    first, again = list(batches.epoch(2)), list(SegmentationBatches(Numbered(), SMALL, batch_size=3, seed=7).epoch(2))
    rest = list(batches.epoch(2, start=2))
    assert len(first) == 3 and len(rest) == 1
    for one, other in [*zip(first, again, strict=True), (first[2], rest[0])]:
        assert torch.equal(one.images.pixels, other.images.pixels) and torch.equal(one.targets, other.targets)
    assert first[0].images.pixels.shape == (3, 3, 16, 16) and first[0].targets.shape == (3, 16, 16)


def test_workers_and_the_generator_of_torch_change_nothing() -> None:
    batches = SegmentationBatches(Numbered(), SMALL, batch_size=3)
    before = torch.get_rng_state()
    here = list(batches.epoch(0))
    batches.workers = 1
    there = list(batches.epoch(0))
    assert all(torch.equal(a.images.pixels, b.images.pixels) for a, b in zip(here, there, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_share_the_batches_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = SegmentationBatches(Numbered(), SMALL, batch_size=4).order(0), []
    for rank in (0, 1):
        be_process(monkeypatch, rank, of=2)
        parts.append(SegmentationBatches(Numbered(), SMALL, batch_size=2).order(0))
        assert parts[rank].tolist() == whole[:, own_rows(2)].tolist()
    assert parts[0].shape == (2, 2) and not set(parts[0].ravel()) & set(parts[1].ravel())


def test_broken_images_are_replaced_and_reported() -> None:
    batches = SegmentationBatches(Numbered(4, broken=(1, 2)), SMALL, batch_size=4)
    [batch] = batches.epoch(0)
    assert {entry.index for entry in batch.unreadable} == {1, 2} and len(batch.images) == 4
    with pytest.raises(ValueError, match=r"not one image .*0\.png is broken"):
        next(SegmentationBatches(Numbered(2, broken=(0, 1)), SMALL, batch_size=1).epoch(0))


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        SegmentationBatches(Numbered(3), SMALL, batch_size=4)
    with pytest.raises(ValueError, match="batch_size must be at least 1, given 0"):
        SegmentationBatches(Numbered(3), SMALL, batch_size=0)


def test_what_is_missing_shows_before_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    photometric.opencv.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match="opencv-python-headless"):
        SegmentationBatches(Numbered(), Augmentation(crop_hw=(16, 16)), batch_size=3)
    assert SegmentationBatches(Numbered(), SMALL, batch_size=3).batches_per_epoch == 3
