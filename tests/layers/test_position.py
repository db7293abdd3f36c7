"""Sine encodings against the recorded numbers of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.layers.position import box_position, padded_sine_position, sine_position

RECORDED = Path(__file__).parents[1] / "parity" / "data" / "ops_det" / "outputs.npz"


@pytest.mark.parametrize("temperature", [20, 10000])
def test_padded_maps(temperature: int) -> None:
    stored = np.load(RECORDED)
    valid = torch.from_numpy(stored[f"sine_t{temperature}.mask"]) == 0
    encoded = padded_sine_position(valid, 16, temperature=temperature)
    expected = torch.from_numpy(stored[f"sine_t{temperature}.out"]).permute(0, 2, 3, 1)
    torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-5)


def test_without_padding_both_encodings_agree() -> None:
    padded = padded_sine_position(torch.ones(1, 5, 7, dtype=torch.bool), 16)
    torch.testing.assert_close(padded.flatten(1, 2)[0], sine_position((5, 7), 16), rtol=0, atol=1e-6)


def test_boxes() -> None:
    stored = np.load(RECORDED)
    encoded = box_position(torch.from_numpy(stored["dino_sine.pos"]), 32)
    torch.testing.assert_close(encoded, torch.from_numpy(stored["dino_sine.out"]), rtol=0, atol=1e-5)
