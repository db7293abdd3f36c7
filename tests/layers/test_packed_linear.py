from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from internimage.backbones import InternImage, variant
from internimage.layers.deform_conv import DCNv3
from internimage.layers.fused import Twin
from internimage.layers.fused.packed_linear import PackedLinear


@pytest.fixture(params=["ours", "torch's"])
def _product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack for our own product where the processor has one, or for torch's as on a processor without."""
    if request.param == "torch's":
        monkeypatch.setattr("internimage.layers.fused.packed_linear.missing_reason", lambda weight: "not wanted")


@pytest.mark.usefixtures("_product")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_joined_layers_give_their_outputs_side_by_side(dtype: torch.dtype) -> None:
    layers = [nn.Linear(6, 4), nn.Linear(6, 3, bias=False), nn.Linear(6, 5)]
    layers = [layer.to(dtype) for layer in layers]
    x = torch.randn(2, 3, 6, dtype=dtype)
    with torch.no_grad():
        joined = PackedLinear(*layers)
        tolerance = 0.05 if dtype == torch.bfloat16 else 1e-6
        expected = torch.cat([layer(x) for layer in layers], dim=-1)
        torch.testing.assert_close(joined(x), expected, atol=tolerance, rtol=tolerance)
        assert joined.sizes == [4, 3, 5]
        alone = PackedLinear(layers[1])
        torch.testing.assert_close(alone(x), layers[1](x), atol=tolerance, rtol=tolerance)
        for activation in ("relu", "gelu"):
            want = getattr(nn.functional, activation)(layers[0](x))
            got = PackedLinear(layers[0])(x, activation=activation)
            torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)


def backbone(name: str = "internimage_pico") -> InternImage:
    config = variant(name)
    extra_norms = (1,) if config.level2_post_norm_block_ids else ()
    small = dataclasses.replace(
        config, channels=32, groups=(2, 4, 8, 16), depths=(1, 1, 3, 1), level2_post_norm_block_ids=extra_norms
    )
    model = InternImage(small).eval()
    for module in model.modules():
        if isinstance(module, DCNv3):
            nn.init.normal_(module.offset.weight, std=0.1)
            nn.init.normal_(module.mask.weight, std=0.1)
    return model


def is_packed(model: nn.Module) -> bool:
    return any(module.packed is not None for module in model.modules() if isinstance(module, Twin))


@pytest.mark.usefixtures("_product")
@pytest.mark.parametrize("name", ["internimage_pico", "flash_internimage_t", "internimage_xl", "internimage_h"])
def test_fuse_keeps_results_and_state(name: str) -> None:
    model, x = backbone(name), torch.randn(2, 3, 70, 65)
    keys = list(model.state_dict())
    with torch.inference_mode():
        expected = model(x).maps
        assert model.fuse() is model
        assert is_packed(model)
        for got, want in zip(model(x).maps, expected, strict=True):
            torch.testing.assert_close(got, want, atol=2e-4, rtol=2e-4)
    assert list(model.state_dict()) == keys


def test_fused_model_still_has_gradients() -> None:
    model = backbone().fuse()
    model(torch.randn(1, 3, 32, 32)).maps[-1].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.load_state_dict(model.state_dict()),
        lambda model: model.to(torch.float64),
    ],
    ids=["train", "load_state_dict", "to"],
)
def test_whatever_may_change_weights_drops_the_copies(change: Callable[[InternImage], object]) -> None:
    model = backbone().fuse()
    change(model)
    assert not is_packed(model)


def test_fused_models_can_be_copied_and_pickled() -> None:
    model, x = backbone().fuse(), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert not is_packed(twin)
            torch.testing.assert_close(twin(x).maps[-1], model(x).maps[-1], atol=2e-4, rtol=2e-4)


def test_large_inputs_take_the_mlp_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = backbone(), torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        expected = model(x).maps[-1]
        monkeypatch.setattr("internimage.layers.fused.mlp.CHUNK_BYTES", 4096)
        torch.testing.assert_close(model(x).maps[-1], expected, atol=1e-4, rtol=1e-4)
