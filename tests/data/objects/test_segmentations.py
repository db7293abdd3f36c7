from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import torch
from faster_coco_eval import mask as coco_tools

from internimage.data.objects.segmentations import decode, run_lengths, run_lengths_from_text
from internimage.data.readers.mask_entries import check_segmentation
from internimage.errors import MissingExtra
from internimage.types import RunLengthMasks


def refuse(reason: str) -> None:
    raise AssertionError(reason)


def mask_of(*polygons: list[float], size_hw: tuple[int, int]) -> torch.Tensor:
    return decode([check_segmentation(list(polygons), size_hw, refuse)], size_hw).to_bool()[0]


# Recorded from pycocotools 2.0.11: SHA-256 of the packed masks below, and the pixels in all of them.
RECORDED = "dae24b4480ca5ddf4a6360bdd4c925d49573dffb8d8abf5e9ff0b6d9ae46b753"
RECORDED_PIXELS = 67656


def test_polygons_equal_the_coco_tools() -> None:
    rng = np.random.default_rng(0)
    digest, pixels = hashlib.sha256(), 0
    for number in range(300):
        height, width = (int(side) for side in rng.integers(5, 60, 2))
        corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 9)), 2)) * [width, height]
        if number % 3 == 0:
            corners = np.round(corners * 2) / 2
        if number % 5 == 0:
            corners[1] = corners[0]
        polygons = [corners.ravel().tolist()]
        if number % 4 == 0:
            polygons.append((rng.uniform(0, 1, (4, 2)) * [width, height]).ravel().tolist())
        mask = mask_of(*polygons, size_hw=(height, width)).numpy()
        digest.update(np.packbits(np.ascontiguousarray(mask)).tobytes())
        pixels += int(mask.sum())
    assert pixels == RECORDED_PIXELS
    assert digest.hexdigest() == RECORDED


def test_simple_polygons() -> None:
    square = mask_of([1, 1, 3, 1, 3, 4, 1, 4], size_hw=(5, 6))
    assert square.nonzero().tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2)]
    assert mask_of([-4, -3, 12, -3, 12, 8, -4, 8], size_hw=(5, 6)).all(), "what is larger covers the image"
    both = mask_of([0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3], size_hw=(4, 4))
    assert int(both.sum()) == 7, "two polygons are joined, not taken from one another"


def test_outlines_without_end_are_refused() -> None:
    corners = np.array([[0.0, 0], [100, 100]] * 200_000)
    with pytest.raises(ValueError, match="more than can be drawn"):
        run_lengths((corners,), (100, 100))
    with pytest.raises(ValueError, match="more than can be drawn"):
        run_lengths((np.array([[1e12, 0.0], [1e12, 5], [1e12 + 1, 5]]),), (100, 100))


def test_without_the_coco_tools_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match=r"internimage\[train\]"):
        mask_of([1, 1, 3, 1, 3, 4, 1, 4], size_hw=(5, 6))


def test_texts_are_those_of_the_coco_tools() -> None:
    rng = np.random.default_rng(1)
    for density in (0.0, 0.02, 0.5, 1.0):
        mask = rng.random((37, 53)) < density
        text = coco_tools.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
        lengths = run_lengths_from_text(text, (37, 53))
        masks = RunLengthMasks((torch.from_numpy(lengths),), (37, 53))
        assert (masks.to_bool()[0].numpy() == mask).all()
        assert masks.to_coco()[0]["counts"] == text
        with pytest.raises(ValueError, match="expected the pixels of the image"):
            run_lengths_from_text(text, (37, 52))
