"""Averages over regions against torchvision."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from internimage.ops import regions
from internimage.ops.regions import average_regions, can_average
from tests.threads import assert_same_bits


def random_rois(count: int, size_hw: tuple[int, int], images: int) -> torch.Tensor:
    """Regions of all shapes: narrow, without extent, and out of the map on every side."""
    generator = torch.Generator().manual_seed(count)
    height, width = size_hw
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 1.2
    half = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.4
    half[:3] = 0
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, center - half, center + half], dim=1)


def torchvision_of(x: torch.Tensor, rois: torch.Tensor, side: int, scale: float) -> torch.Tensor:
    return roi_align(x.float(), rois, side, scale, sampling_ratio=-1, aligned=True)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("side", [1, 7])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_torchvision(side: int, scale: float, channels_last: bool) -> None:
    x = torch.randn(2, 5, 19, 23, generator=torch.Generator().manual_seed(0))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    rois = random_rois(60, (int(19 / scale), int(23 / scale)), images=2)
    expected = torchvision_of(x, rois, side, scale)
    torch.testing.assert_close(average_regions(x, rois, side, scale), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_equal_torchvision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 37, 19, 23, generator=generator).to(dtype).requires_grad_()
    rois = random_rois(60, (38, 46), images=2)  # no region of the third image
    found, expected = average_regions(x, rois, 7, 0.5), torchvision_of(x, rois, 7, 0.5).to(dtype)
    upstream = torch.randn(found.shape, generator=generator)
    gradients = [torch.autograd.grad(out.float().mul(upstream).sum(), x)[0] for out in (found, expected)]
    close = dict(rtol=1e-4, atol=1e-4) if dtype is torch.float32 else dict(rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(*gradients, **close)
    assert gradients[0].dtype == dtype and not gradients[0][2].any()


def test_gradients_are_the_same_for_every_number_of_threads() -> None:
    rois = random_rois(60, (38, 46), images=2)
    x = torch.randn(2, 8, 19, 23, requires_grad=True)
    assert_same_bits(lambda: torch.autograd.grad(average_regions(x, rois, 7, 0.5).square().sum(), x), (1, 3))


def test_where_the_kernel_serves() -> None:
    x = torch.randn(1, 4, 8, 8)
    assert can_average(x) and can_average(x.bfloat16(), backend="cpp")
    assert not can_average(x, backend="reference") and not can_average(x.double()) and not can_average(x.to("meta"))


def test_parts_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rois = torch.randn(1, 4, 16, 16), random_rois(40, (16, 16), images=1)
    whole = average_regions(x, rois, 3, 1.0)
    monkeypatch.setattr(regions, "CHUNK_SAMPLES", 50)
    assert torch.equal(average_regions(x, rois, 3, 1.0), whole)


def test_no_regions() -> None:
    assert average_regions(torch.randn(1, 4, 8, 8), torch.zeros(0, 5), 7, 0.5).shape == (0, 4, 7, 7)
