"""Averages over regions against torchvision."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from internimage.ops import regions
from internimage.ops.regions import average_regions


def random_rois(count: int, size_hw: tuple[int, int], images: int) -> torch.Tensor:
    """Regions of all shapes: narrow, without extent, and out of the map on every side."""
    generator = torch.Generator().manual_seed(count)
    height, width = size_hw
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 1.2
    half = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.4
    half[:3] = 0
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, center - half, center + half], dim=1)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("side", [1, 7])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_torchvision(side: int, scale: float, channels_last: bool) -> None:
    x = torch.randn(2, 5, 19, 23, generator=torch.Generator().manual_seed(0))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    rois = random_rois(60, (int(19 / scale), int(23 / scale)), images=2)
    expected = roi_align(x, rois, side, scale, sampling_ratio=-1, aligned=True)
    torch.testing.assert_close(average_regions(x, rois, side, scale), expected, rtol=1e-4, atol=1e-4)


def test_parts_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rois = torch.randn(1, 4, 16, 16), random_rois(40, (16, 16), images=1)
    whole = average_regions(x, rois, 3, 1.0)
    monkeypatch.setattr(regions, "CHUNK_SAMPLES", 50)
    assert torch.equal(average_regions(x, rois, 3, 1.0), whole)


def test_no_regions() -> None:
    assert average_regions(torch.randn(1, 4, 8, 8), torch.zeros(0, 5), 7, 0.5).shape == (0, 4, 7, 7)
