"""On a processor without instructions for bfloat16, `fuse()` computes such models in float32."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from internimage.backbones import InternImage
from internimage.layers.fused import fuse
from internimage.ops.runtime import library
from tests.layers.test_packed_linear import backbone

pytestmark = pytest.mark.skipif(library.missing_reason() is not None, reason="no compiled kernels to limit")


@pytest.fixture(params=["AVX2", "AVX-512"], autouse=True)
def _no_instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    best = library.instruction_set()
    library.limit_instruction_set(request.param)
    yield
    library.limit_instruction_set(best)


class _Products(TorchDispatchMode):
    """Collects the dtypes of all that is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(part in name for part in ("mm", "linear", "perceptron", "conv")):
            self.dtypes |= {value.dtype for value in args if isinstance(value, Tensor) and value.dim() > 1}
            self.names.add(name)
        return func(*args, **(kwargs or {}))


def products(model: nn.Module, x: Tensor) -> _Products:
    with torch.inference_mode(), _Products() as seen:
        model(x)
    return seen


@pytest.mark.parametrize("name", ["internimage_pico", "flash_internimage_t", "internimage_xl", "internimage_h"])
def test_results_are_those_of_float32(name: str) -> None:
    model = backbone(name).bfloat16()
    x = torch.randn(2, 3, 70, 65).bfloat16()
    with torch.inference_mode():
        expected = copy.deepcopy(model).float()(x.float()).maps
        for got, want in zip(model.fuse()(x).maps, expected, strict=True):
            assert got.dtype == torch.bfloat16
            assert (got.float() - want).norm() < 0.01 * want.norm()


def test_every_product_is_one_in_float32() -> None:
    plain, x = backbone().bfloat16(), torch.randn(1, 3, 64, 64).bfloat16()
    assert torch.bfloat16 in products(plain, x).dtypes
    seen = products(plain.fuse(), x)
    assert seen.names
    assert seen.dtypes == {torch.float32}


def test_heads_too() -> None:
    head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).bfloat16().eval()
    x = torch.randn(2, 3, 8, 8).bfloat16()
    with torch.inference_mode():
        want = copy.deepcopy(head).float()(x.float())
        fuse(head)
        torch.testing.assert_close(head(x).float(), want, atol=0.02, rtol=0.02)
    assert products(head, x).dtypes == {torch.float32}
    head.train()
    assert [type(layer) for layer in head] == [nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear]


def test_new_weights_are_seen_and_gradients_stay() -> None:
    model, other = backbone().bfloat16().fuse(), backbone().bfloat16()
    x = torch.randn(1, 3, 64, 64).bfloat16()
    part = model.levels[1]
    part.load_state_dict(other.levels[1].state_dict())  # drops the copies of this level alone
    with torch.inference_mode():
        want = copy.deepcopy(model).float()(x.float()).maps[-1]
        got = model(x).maps[-1].float()
    assert (got - want).norm() < 0.01 * want.norm()
    model(x).maps[-1].float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for p in model.parameters())


def test_other_dtypes_are_left_alone() -> None:
    model, x = backbone().fuse(), torch.randn(1, 3, 64, 64)
    assert isinstance(model, InternImage)
    assert all(type(layer).__name__ != "Float32Conv" for layer in model.modules())
    assert products(model, x).dtypes == {torch.float32}
