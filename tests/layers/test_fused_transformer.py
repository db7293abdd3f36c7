"""The inference forms of transformer parts give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from internimage.layers import feed_forward
from internimage.layers.attention import Attention
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.feed_forward import FeedForward
from internimage.layers.fused import Twin, add_norm, feed_forward_norm, fuse

SHAPES = [(5, 7), (3, 4)]
CELLS = 47


def plain_and_packed(layer: nn.Module, *inputs: Tensor, **settings: object) -> tuple[Tensor, Tensor]:
    """Outputs with gradients switched on, and packed without."""
    layer.eval()
    plain = layer(*inputs, **settings).detach()
    fuse(layer)
    assert isinstance(layer, Twin)
    assert any(part.packed is not None for part in layer.modules() if isinstance(part, Twin))
    with torch.inference_mode():
        return plain, layer(*inputs, **settings)


@pytest.mark.parametrize("chunk_bytes", [64, 4 * 2**20])
def test_feed_forward(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(feed_forward, "CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(0)
    torch.testing.assert_close(*plain_and_packed(FeedForward(16, 40), torch.randn(2, 9, 16)), rtol=1e-4, atol=1e-5)


def test_feed_forward_in_parts_without_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = FeedForward(16, 40), torch.randn(2, 9, 16)
    whole = layer(x)
    monkeypatch.setattr(feed_forward, "CHUNK_BYTES", 640)
    hidden: list[int] = []
    layer.fc1.register_forward_hook(lambda _, __, output: hidden.append(len(output)))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), whole, rtol=1e-4, atol=1e-5)
    assert hidden == [4, 4, 4, 4, 2]


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_feed_forward_norm(dtype: torch.dtype, is_packed: bool) -> None:
    torch.manual_seed(0)
    layer, norm, x = FeedForward(16, 40).to(dtype), nn.LayerNorm(16).to(dtype), torch.randn(2, 9, 16).to(dtype)
    nn.init.normal_(norm.weight)
    expected, kept = norm(x + layer(x)).detach(), x.clone()
    if is_packed:
        fuse(layer)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(feed_forward_norm(x, layer, norm).detach(), expected)
    with torch.inference_mode():
        torch.testing.assert_close(feed_forward_norm(x, layer, norm), expected, rtol=tolerance, atol=tolerance)
        with torch.autocast("cpu", torch.bfloat16):
            assert feed_forward_norm(x, layer, norm).isfinite().all()
    assert torch.equal(x, kept)


def test_feed_forward_under_autocast_answers_in_its_type() -> None:
    layer, x = FeedForward(16, 40), torch.randn(2, 9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        with torch.no_grad():
            found = layer(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


def test_attention() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    allowed = torch.rand(2, 5, 9) > 0.3
    allowed[..., 0] = True
    both = plain_and_packed(Attention(16, 4), query, key, value, allowed=allowed)
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [2, 4])
def test_deform_attention(width: int) -> None:
    torch.manual_seed(0)
    layer = MSDeformAttention(16, 4, num_levels=2, num_points=3)
    nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    nn.init.normal_(layer.attention_weights.weight)
    query, value, reference = torch.randn(2, 6, 16), torch.randn(2, CELLS, 16), torch.rand(2, 6, 2, width)
    padding = torch.rand(2, CELLS) > 0.8
    kept = value.clone()
    plain, packed = plain_and_packed(layer, query, value, reference, SHAPES, padding=padding)
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(value, kept)


def test_add_norm() -> None:
    torch.manual_seed(0)
    x, branch, norm = torch.randn(3, 5, 16), torch.randn(3, 5, 16), nn.LayerNorm(16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    plain, kept = add_norm(x, branch, norm).detach(), x.clone()
    with torch.inference_mode():
        torch.testing.assert_close(add_norm(x, branch.clone(), norm), plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, kept)
