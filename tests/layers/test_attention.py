from __future__ import annotations

import pytest
import torch
from torch import nn

from internimage.layers.attention import Attention
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.position import sine_position

SHAPES = [(3, 5), (2, 2)]


def test_attention_is_that_of_torch_with_a_mask_for_all_heads() -> None:
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.data.copy_(ours.in_proj.weight)
    nn.init.normal_(ours.in_proj.bias)
    theirs.in_proj_bias.data.copy_(ours.in_proj.bias)
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    query, key, value = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    allowed = torch.rand(2, 3, 5) > 0.4
    allowed[..., 0] = True
    expected, _ = theirs(query, key, value, attn_mask=~allowed.repeat_interleave(2, dim=0))
    torch.testing.assert_close(ours(query, key, value, allowed=allowed), expected)
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0])


def test_fresh_deformable_attention_averages_the_published_directions() -> None:
    layer = MSDeformAttention(8, 4, num_levels=2, num_points=3)
    offsets = layer.sampling_offsets.bias.unflatten(0, (4, 2, 3, 2))
    assert offsets[0, 1].tolist() == [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    torch.testing.assert_close(offsets[1, 0, 1], torch.tensor([0.0, 2.0]))
    assert not layer.attention_weights.weight.any() and not layer.attention_weights.bias.any()


@pytest.mark.parametrize("size", [2, 4])
def test_places_follow_the_references(size: int) -> None:
    """Constant maps give their constant for points inside, whatever the form of the reference."""
    layer = MSDeformAttention(8, 2, num_levels=2, num_points=2)
    nn.init.zeros_(layer.sampling_offsets.bias)
    for projection in (layer.value_proj, layer.output_proj):
        nn.init.eye_(projection.weight)
    levels = torch.tensor([1.0] * 15 + [3.0] * 4)
    value = levels[None, :, None].expand(1, -1, 8)
    reference = torch.full((1, 7, 2, size), 0.5)
    out = layer(torch.randn(1, 7, 8), value, reference, SHAPES)
    torch.testing.assert_close(out, torch.full((1, 7, 8), 2.0))
    padding = torch.zeros(1, 19, dtype=torch.bool)
    padding[:, 15:] = True
    torch.testing.assert_close(
        layer(torch.randn(1, 7, 8), value, reference, SHAPES, padding=padding), torch.full((1, 7, 8), 0.5)
    )


def test_half_precision_keeps_its_places() -> None:
    layer = MSDeformAttention(16, 2, num_levels=1, num_points=2)
    query, value = torch.randn(1, 5, 16), torch.randn(1, 600, 16)
    reference = torch.rand(1, 5, 1, 2)
    expected = layer(query, value, reference, [(1, 600)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(query, value, reference, [(1, 600)])
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="divide"):
        Attention(8, 3)
    with pytest.raises(ValueError, match="divide"):
        MSDeformAttention(8, 3, num_levels=1)


def test_sine_position_tells_rows_from_columns() -> None:
    position = sine_position((3, 4), 16).unflatten(0, (3, 4))
    assert torch.equal(position[1, 0, :8], position[1, 3, :8]) and torch.equal(position[0, 2, 8:], position[2, 2, 8:])
    assert len(position.flatten(0, 1).unique(dim=0)) == 12
    assert position.abs().max() <= 1
