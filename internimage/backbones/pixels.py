"""What a backbone expects of its input, said before torch meets it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def check_pixels(pixels: Tensor, *, in_chans: int, weight: Tensor) -> None:
    """Raise unless `pixels` are a dense (N, in_chans, H, W) tensor that suits `weight`, of the first layer.

    Raises:
        ValueError: another shape, a side of 0, or pixels without values (meta) for weights that have some.
        TypeError: no tensor, a sparse one, or another dtype than that of the weights, outside of autocast.
    """
    if not isinstance(pixels, Tensor):
        raise TypeError(
            f"pixels must be a tensor (N, {in_chans}, H, W), given {type(pixels).__name__}; images go to predict()"
        )
    if pixels.layout is not torch.strided or pixels.is_nested:
        kind = "a nested tensor" if pixels.is_nested else f"layout {pixels.layout}; call .to_dense() first"
        raise TypeError(f"pixels must be a dense tensor (N, {in_chans}, H, W), given {kind}")
    if pixels.ndim != 4 or pixels.shape[1] != in_chans:
        hint = "; add the axis of the images: pixels[None]" if tuple(pixels.shape[:1]) == (in_chans,) else ""
        given = tuple(pixels.shape)
        raise ValueError(f"pixels must be (N, {in_chans}, H, W), given {given}{hint if len(given) == 3 else ''}")
    if torch.compiler.is_compiling():  # what follows would be asked again in every graph
        return
    if min(pixels.shape[2:]) < 1:
        raise ValueError(f"images must have at least one pixel, given pixels of shape {tuple(pixels.shape)}")
    _check_kind(pixels, weight)
    if torch._C._get_tracing_state() is not None:
        warnings.warn(
            "torch.jit.trace makes constants of the image's sides: the traced model gives wrong results, without an "
            "error, for any other size. Use torch.export, or trace once for every size",
            stacklevel=4,
        )


def _check_kind(pixels: Tensor, weight: Tensor) -> None:
    if not pixels.is_floating_point():
        raise TypeError(
            f"pixels must be normalized floating-point values of {weight.dtype}, given {pixels.dtype}; "
            "model.preprocess makes them of images"
        )
    device = pixels.device.type
    if pixels.is_meta:
        if not weight.is_meta:
            raise ValueError(
                f"pixels on the meta device have no values, the weights on {weight.device} do; "
                "move both: model.to('meta') for shapes, or pixels with values"
            )
    elif pixels.dtype != weight.dtype and not torch.is_autocast_enabled(device):
        raise TypeError(
            f"pixels must have the dtype of the weights ({weight.dtype}), given {pixels.dtype}; convert one of them: "
            f"pixels.to({weight.dtype}), or use torch.autocast"
        )
