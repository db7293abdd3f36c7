from __future__ import annotations

import pytest
import torch
from torch import nn

from internimage.layers.layer_norm import LayerNorm


@pytest.mark.parametrize("channels", [12, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_half_parameters", [False, True])
def test_equals_torch(channels: int, dtype: torch.dtype, has_half_parameters: bool) -> None:
    ours, torchs = LayerNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
    with torch.no_grad():
        nn.init.normal_(ours.weight), nn.init.normal_(ours.bias)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(50, channels).to(dtype)
    if has_half_parameters:
        ours, torchs = ours.to(dtype), torchs.to(dtype)
    found, expected = (norm(x.requires_grad_()) for norm in (ours, torchs))
    close = {} if dtype is torch.float32 else dict(rtol=2e-2, atol=2e-2)
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found, expected, **close)
    for own, other in zip(
        *(torch.autograd.grad(out.float().square().sum(), x) for out in (found, expected)), strict=True
    ):
        torch.testing.assert_close(own, other, rtol=5e-2, atol=5e-2)
