"""Inference twins come with evaluation mode, go with training mode, and leave everything else as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from internimage.backbones import InternImage, variant
from internimage.backbones.blocks import Block, Level
from internimage.backbones.fused import FusedBlock, FusedLevel
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.layers.fused import Twin, fuse
from internimage.layers.mlp import MLP


@pytest.fixture
def model() -> InternImage:
    return InternImage(variant("internimage_pico"))


def twins(model: nn.Module) -> list[Twin]:
    return [module for module in model.modules() if isinstance(module, Twin)]


def test_twins_follow_the_mode(model: InternImage) -> None:
    parameters, keys = list(model.parameters()), list(model.state_dict())
    assert not twins(model)
    model.eval()
    assert {type(m) for m in twins(model)} >= {FusedBlock, FusedLevel}
    assert all(isinstance(m, Block) for m in twins(model) if type(m) is FusedBlock)
    with evaluation_mode(model.train()):
        assert twins(model) and not model.training
    assert not twins(model) and model.training
    model.fuse().train()
    assert not twins(model)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys


def test_frozen_levels_of_a_model_in_training_are_plain(model: InternImage) -> None:
    frozen = InternImage(model.config, frozen_stages=2).eval().train()
    assert not twins(frozen)
    assert not frozen.levels[0].training and frozen.levels[3].training


def test_hooks_of_levels_see_their_outputs(model: InternImage) -> None:
    model.fuse()
    seen: list[torch.Size] = []
    model.levels[1].register_forward_hook(lambda _, __, output: seen.append(output.shape))
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    assert seen == [(1, 8, 8, model.config.widths[1])]


class _Adapter(nn.Module):
    def __init__(self, inner: MLP) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_part_that_was_replaced_runs_as_it_is(model: InternImage, is_fused: bool) -> None:
    first = model.levels[0]
    assert isinstance(first, Level)
    block = first.blocks[0]
    assert isinstance(block, Block)
    block.mlp = _Adapter(block.mlp)  # type: ignore[assignment]  # what a user may do
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x).maps[-1]
        fuse(model) if is_fused else model.eval()
        torch.testing.assert_close(model(x).maps[-1], expected, atol=1e-4, rtol=1e-4)


def test_a_level_in_training_inside_of_a_fused_model(model: InternImage) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.fuse()(x).maps[-1]
        model.levels[1].train()
        torch.testing.assert_close(model(x).maps[-1], expected, atol=1e-4, rtol=1e-4)
