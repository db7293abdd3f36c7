"""Necks: sizes, memory order and bad settings; their numbers are checked by the parity cases."""

from __future__ import annotations

import pytest
import torch

from internimage.layers.feature_pyramid import ChannelMapper, FeaturePyramid


def maps(*channels: int, side: int = 13) -> list[torch.Tensor]:
    sizes = [side]
    for _ in channels[1:]:
        sizes.append((sizes[-1] + 1) // 2)
    return [
        torch.rand(1, c, s, s + 2).contiguous(memory_format=torch.channels_last)
        for c, s in zip(channels, sizes, strict=True)
    ]


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_pyramid_takes_odd_sizes_and_keeps_channels_last(norm: str) -> None:
    inputs = maps(8, 16, 32)
    outputs = FeaturePyramid((8, 16, 32), 4, num_levels=5, norm=norm)(inputs)  # type: ignore[arg-type]
    assert [tuple(x.shape[2:]) for x in outputs] == [(13, 15), (7, 9), (4, 6), (2, 3), (1, 2)]
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)
    assert (torch.equal(outputs[3], outputs[2][:, :, ::2, ::2])) and outputs[4].shape[1] == 4


def test_with_a_norm_the_convolutions_have_no_bias() -> None:
    names = dict(FeaturePyramid((8,), 4, num_levels=2, norm="layer").named_parameters())
    assert "lateral_convs.0.conv.bias" not in names and names["lateral_convs.0.norm.weight"].shape == (4,)


def test_mapper_adds_levels_of_the_last_map() -> None:
    outputs = ChannelMapper((8, 16), 32, num_levels=4)(maps(8, 16))
    assert [tuple(x.shape[1:]) for x in outputs] == [(32, 13, 15), (32, 7, 9), (32, 4, 5), (32, 2, 3)]


def test_too_few_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        FeaturePyramid((8, 16), 4, num_levels=1)
    with pytest.raises(ValueError, match="at least 2"):
        ChannelMapper((8, 16), 32, num_levels=1)
