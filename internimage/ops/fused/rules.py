"""When a layer may run in its inference form: all conditions, in one place.

A compiler or an exporter gets the separate operators, which it can fuse or translate itself. Steps without derivatives
must not stand where something differentiates, and autocast chooses dtypes step by step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops import backends
from internimage.ops.derivatives import is_transformed
from internimage.ops.fused import reference
from internimage.ops.registration import is_eager


def can_fuse(x: Tensor, *, backend: str = "auto") -> bool:
    """Whether compiled steps serve for `x` now: float32, float16 or bfloat16 on a CPU or GPU, and nothing is lost."""
    device = x.device.type
    if backend == "reference" or x.is_meta or not is_inference(device):
        return False
    return backends.choose("add_shortcut_", "auto", device, x.dtype).forward is not reference.add_shortcut_


def is_inference(device: str) -> bool:
    """Whether steps on this device type run now, without derivatives, outside of compilers, exporters and autocast."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
        return False
    return not torch.is_autocast_enabled(device)


def may_divide(x: Tensor) -> bool:
    """Whether a large step on `x` may be done in parts to save memory: eager inference on a CPU outside of autocast.

    Gradients would keep every part, a compiler or exporter would see a loop, and other devices want large steps.
    """
    return x.device.type == "cpu" and is_inference("cpu") and is_eager(x)
