"""What is no input of a model is said before torch meets it; meta tensors give shapes; traces warn."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import internimage as ii
from internimage.backbones import InternImage, variant
from internimage.backbones.composite import CompositeInternImage

TINY = dataclasses.replace(variant("internimage_pico"), depths=(1, 1, 1, 1))
MODELS = ("backbone", "composite", "classifier", "upernet", "segformer", "mask2former", "mask_rcnn", "dino")
each_model = pytest.mark.parametrize("name", MODELS)
X = torch.zeros(1, 3, 64, 64)


@cache
def build(name: str) -> nn.Module:
    if name in ("backbone", "composite"):
        return (InternImage if name == "backbone" else CompositeInternImage)(TINY).eval()
    return ii.create(name, backbone=TINY, num_classes=3).eval()


@each_model
@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (X[0], ValueError, r"must be \(N, 3, H, W\), given \(3, 64, 64\); add the axis of the images: pixels\[None\]"),
        (X[None], ValueError, r"must be \(N, 3, H, W\), given \(1, 1, 3, 64, 64\)$"),
        (X[:, :2], ValueError, r"must be \(N, 3, H, W\), given \(1, 2, 64, 64\)$"),
        (X[:, :, :0, :0], ValueError, r"at least one pixel, given pixels of shape \(1, 3, 0, 0\)"),
        (X[:, :, :, :0], ValueError, r"at least one pixel, given pixels of shape \(1, 3, 64, 0\)"),
        (X.to_sparse(), TypeError, r"dense tensor .*layout torch.sparse_coo; call .to_dense\(\)"),
        (torch.nested.nested_tensor([X[0]], layout=torch.jagged), TypeError, r"dense tensor .*given a nested tensor"),
        (X.byte(), TypeError, r"normalized floating-point values of torch.float32, given torch.uint8"),
        (X.double(), TypeError, r"dtype of the weights \(torch.float32\), given torch.float64; convert one"),
        (X.to("meta"), ValueError, r"meta device have no values, the weights on cpu do"),
        ([X[0]], TypeError, r"must be a tensor \(N, 3, H, W\), given list; images go to predict"),
        (X.numpy(), TypeError, r"must be a tensor \(N, 3, H, W\), given ndarray"),
    ],
    ids=lambda value: None if isinstance(value, type | str) else type(value).__name__,
)
def test_what_is_no_input_is_said_so(name, pixels, error, message):
    with pytest.raises(error, match=message), torch.no_grad():
        build(name)(pixels)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mask_rcnn"])
def test_meta_tensors_give_shapes(name):
    def shapes(output: object) -> list[torch.Size]:
        parts = getattr(output, "maps", output)
        return [part.shape for part in (parts if isinstance(parts, tuple) else (parts,)) if isinstance(part, Tensor)]

    model = build(name)
    with torch.no_grad():
        want = shapes(model(X))
        try:
            got = shapes(model.to("meta")(X.to("meta")))
        finally:
            build.cache_clear()
    assert got == want


def test_objects_of_meta_tensors_cannot_be_counted():
    with torch.device("meta"):
        model = ii.create("mask_rcnn", backbone=TINY, num_classes=3).eval()
    with pytest.raises(ValueError, match=r"how many objects.*meta tensors lack; .*model\.backbone"):
        model(X.to("meta"))


def test_autocast_takes_pixels_of_its_own_dtype():
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert build("classifier")(X.bfloat16()).shape == (1, 3)


@pytest.mark.parametrize("name", ["backbone", "classifier", "upernet"])
def test_a_trace_warns_of_other_sizes(name):
    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(name)

        def forward(self, pixels: Tensor) -> object:
            output = self.model(pixels)
            return output.maps if hasattr(output, "maps") else output

    outputs = Outputs()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        torch.jit.trace(outputs, (X,), check_trace=False)
    assert any("wrong results, without an error, for any other size" in str(one.message) for one in caught)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        outputs(X)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("is_fused", [False, True])
def test_a_model_has_all_derivatives_of_its_pixels(is_fused):
    model = ii.create("classifier", backbone=TINY, num_classes=3, drop_path_rate=0.0).double().eval()
    if is_fused:
        model = model.fuse()
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    along = torch.randn_like(pixels)
    with torch.no_grad():
        want = (model(pixels + 1e-6 * along) - model(pixels - 1e-6 * along)) / 2e-6
        _, tangent = torch.func.jvp(model, (pixels,), (along,))
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(model(forward_ad.make_dual(pixels, along))).tangent
    torch.testing.assert_close(tangent, want, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(dual, tangent)


def test_gradients_of_single_images():
    model = build("classifier").double()
    pixels, labels = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 2])
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        scores = torch.func.functional_call(model, weights, (image[None],))
        return nn.functional.cross_entropy(scores, label[None])

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, pixels, labels)
    for i in range(2):
        model.zero_grad()
        nn.functional.cross_entropy(model(pixels[i, None]), labels[i, None]).backward()
        for name, value in model.named_parameters():
            torch.testing.assert_close(got[name][i], value.grad, atol=1e-9, rtol=1e-6)
    build.cache_clear()
