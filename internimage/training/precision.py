"""Which precision a run computes in where its recipe leaves the choice to the machine."""

from __future__ import annotations

import logging
import os
import platform
from typing import TypeVar

import torch

from internimage.training.settings import Recipe

logger = logging.getLogger(__name__)
RecipeT = TypeVar("RecipeT", bound=Recipe)
# What oneDNN may be limited to by ONEDNN_MAX_CPU_ISA and still multiply in bfloat16.
_ONEDNN_WITH_BF16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10_1", "AVX10_2")


def has_bf16_instructions(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own.

    Where it does not, bfloat16 is converted back and forth: four to fifteen times slower than float32 on a processor
    with AVX2 only.

    Args:
        device: CPU, CUDA or any other.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    is_limited = limit not in ("ALL", "DEFAULT", "") and not limit.startswith(_ONEDNN_WITH_BF16)
    is_wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return is_wide and not is_limited and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def with_precision(recipe: RecipeT, device: torch.device) -> RecipeT:
    """Return the recipe with "auto" decided; warns where a precision of the recipe is slow on this device.

    Args:
        recipe: the recipe.
        device: where it is trained.
    """
    precision, is_fast = recipe.run.precision, has_bf16_instructions(device)
    if precision == "auto":
        precision = "bf16" if is_fast else "fp32"
        reason = "which this device computes fast" if is_fast else "because this device has no instructions for bf16"
        logger.info("trains in %s, %s (run.precision)", precision, reason)
        return recipe.with_choice({"run.precision": precision})
    if precision == "bf16" and not is_fast:
        logger.warning(
            "run.precision=bf16 is slow here: this device has no instructions for it; run.precision=fp32 is faster"
        )
    return recipe
