"""ms_deform_attn on a CPU through the compiled kernels (kernel_cpp.cpp).

Shapes: N images, S pixels of all levels, M heads, D channels of a head, L levels, Q queries, P points of a level.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v3.kernel_cpp import missing_reason as missing_reason
from internimage.ops.runtime import library
from internimage.ops.runtime.abi import AttentionArgs
from internimage.ops.sampling import check_sides


def forward(value: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """(N, Q, M*D)."""
    n, queries, heads = locations.shape[:3]
    out = value.new_empty(n, queries, heads * value.shape[3])
    if out.numel() == 0:
        return out
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    args, _kept = _arguments(value, locations, weights, levels)
    args.out = out.data_ptr()
    library.call("internimage_attention_forward", args, value.dtype, _threads(value, weights))
    return out


def backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, all contiguous."""
    if grad.numel() == 0:
        return torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights)
    grad, value = grad.contiguous(), value.contiguous()
    locations, weights = locations.contiguous(), weights.contiguous()
    grads = torch.empty_like(value), torch.empty_like(locations), torch.empty_like(weights)
    args, _kept = _arguments(value, locations, weights, levels)
    args.grad_out = grad.data_ptr()
    args.grad_value, args.grad_location, args.grad_weight = (t.data_ptr() for t in grads)
    library.call("internimage_attention_backward", args, value.dtype, _threads(value, weights))
    return grads


def value_gradient(grad: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """Gradient of value (N, S, M, D) alone, for locations and weights that are not learned."""
    n, _, heads = locations.shape[:3]
    pixels = sum(height * width for height, width in levels.shapes)
    grad_value = grad.new_empty(n, pixels, heads, grad.shape[2] // heads)
    if grad.numel() == 0:
        return grad_value.zero_()
    grad, locations, weights = grad.contiguous(), locations.contiguous(), weights.contiguous()
    args, _kept = _arguments(grad_value, locations, weights, levels)
    args.grad_out, args.value = grad.data_ptr(), None
    args.grad_value = grad_value.data_ptr()
    library.call("internimage_attention_backward", args, grad.dtype, _threads(grad_value, weights))
    return grad_value


def _arguments(
    value: Tensor, locations: Tensor, weights: Tensor, levels: Levels
) -> tuple[AttentionArgs, ctypes.Array[ctypes.c_int64]]:
    """The part of the arguments that both directions share, and the sizes it points to."""
    n, pixels, heads, channels = value.shape
    check_sides(*levels.sizes, pixels=pixels, row=max(levels.sizes) * heads * channels)
    sizes = (ctypes.c_int64 * len(levels.sizes))(*levels.sizes)
    args = AttentionArgs(
        value=value.data_ptr(),
        location=locations.data_ptr(),
        weight=weights.data_ptr(),
        shapes=ctypes.addressof(sizes),
        batch=n,
        pixels=pixels,
        queries=locations.shape[1],
        heads=heads,
        channels=channels,
        levels=len(levels.shapes),
        points=locations.shape[4],
        value_stride=heads * channels,
        normalized=levels.normalized,
        softmax=levels.softmax,
    )
    return args, sizes


def _threads(value: Tensor, weights: Tensor) -> int:
    return library.team_size(4 * weights.numel() * value.shape[3])
