"""The composite backbone: sizes, batches, what is fed, and switches; its numbers are checked by the parity cases."""

from __future__ import annotations

import pytest
import torch

from internimage.backbones import CompositeInternImage, variant

PICO = variant("internimage_pico")


@pytest.fixture
def model() -> CompositeInternImage:
    return CompositeInternImage(PICO, out_indices=(1, 2, 3)).eval()


def test_any_batch_and_any_size(model: CompositeInternImage) -> None:
    with torch.inference_mode():
        both = model(torch.rand(3, 3, 50, 37)).maps
        one = model(torch.rand(1, 3, 50, 37)).maps
    assert [tuple(m.shape) for m in both] == [(3, 48, 7, 5), (3, 96, 4, 3), (3, 192, 2, 2)]
    assert model.channels == (48, 96, 192) and one[0].shape[0] == 1


def test_pictures_of_a_batch_do_not_see_one_another(model: CompositeInternImage) -> None:
    for scale in model.feed_scales:
        torch.nn.init.normal_(scale)
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        both, second = model(pixels).maps, model(pixels[1:]).maps
    for a, b in zip(both, second, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-4, atol=1e-5)


def test_fresh_scales_feed_nothing(model: CompositeInternImage) -> None:
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(pixels).maps
        for convs in model.feed_convs:
            for conv in list(convs)[1:]:  # type: ignore[arg-type]
                torch.nn.init.normal_(conv.weight)
        for a, b in zip(before, model(pixels).maps, strict=True):
            assert torch.equal(a, b)
        model.feed_scales[3].fill_(1.0)
        assert not torch.equal(before[2], model(pixels).maps[2])


def test_scales_are_rounded_to_half_precision_and_have_exact_gradients(model: CompositeInternImage) -> None:
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        model.feed_scales[1].fill_(1.0001)  # not a number of half precision
        rounded = model(pixels).maps[0]
        model.feed_scales[1].fill_(1.0)
        assert torch.equal(rounded, model(pixels).maps[0])
    model(pixels).maps[0].sum().backward()
    assert model.feed_scales[1].grad is not None and model.feed_scales[1].grad.dtype == torch.float32


def test_half_precision_and_switches(model: CompositeInternImage) -> None:
    with torch.inference_mode():
        assert model.to(torch.bfloat16)(torch.rand(1, 3, 32, 32, dtype=torch.bfloat16)).maps[0].isfinite().all()
    model.float().set_activation_checkpointing(True)
    model.train()(torch.rand(1, 3, 32, 32)).maps[-1].sum().backward()
    assert all(level.activation_checkpointing for b in model.backbones for level in b.levels)  # type: ignore[union-attr]
