from __future__ import annotations

import numpy as np
import pytest
import torch

import internimage as ii


def test_maps_are_those_of_the_backbone() -> None:
    model = ii.load("internimage_pico_fashion")
    model.train()
    images = [np.full((40, 60, 3), value, dtype=np.uint8) for value in (0, 255)]
    maps = ii.features(model, images).maps
    assert model.training and not any(level.requires_grad for level in maps)
    with torch.inference_mode():
        expected = model.eval().backbone(model.preprocess(images).pixels).maps
    assert len(maps) == 4 and all(torch.equal(ours, theirs) for ours, theirs in zip(maps, expected, strict=True))


def test_a_bare_backbone_is_referred_to_its_call() -> None:
    with pytest.raises(TypeError, match=r"model\(pixels\)\.maps"):
        ii.features(ii.create("internimage_pico"), [np.zeros((32, 32, 3), dtype=np.uint8)])
