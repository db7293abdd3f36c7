"""What the row kernels compile to for GPUs that are not here: wide loads, no spills, few variants."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from internimage.backbones import InternImage, variant
from internimage.ops.fused import rows
from internimage.ops.runtime.triton import support

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or support.interpreting(), reason="no triton that compiles"
)
if importlib.util.find_spec("triton") is not None and not support.interpreting():
    from benchmarks.compiled import Variant, collecting, machine_code
    from benchmarks.host import stubbed

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
WIDTHS = sorted(
    {width for name in ("t", "s", "b", "l", "xl", "h", "g") for width in variant(f"internimage_{name}").widths}
)


def launch(step: str, channels: int, dtype: torch.dtype, count: int = 300) -> None:
    """Launch a step on rows without values; parameters are float32, as under autocast."""
    kernels = rows.kernels()
    maps = [torch.empty(2, 1, count, channels, dtype=dtype, device="meta") for _ in range(6)]
    vectors = [torch.empty(channels, device="meta") for _ in range(6)]
    shift, gamma, weight, bias, next_weight, next_bias = vectors
    keep, y, total, normed, gelu = torch.empty(2, device="meta"), *maps[:3], step.endswith("GELU")
    none: list[Tensor | None] = [None] * 6
    steps: dict[str, Callable[[], object]] = {
        "forward: norm": partial(kernels.rows, y, *none[:3], total, None, gelu, None, weight, bias, None, None, 1e-6),
        "forward: branch": partial(
            kernels.rows,
            y,
            shift,
            maps[3],
            keep,
            total,
            normed,
            False,
            gamma,
            weight,
            bias,
            next_weight,
            next_bias,
            1e-6,
        ),
        "backward: norm": partial(
            kernels.rows_backward, maps[3], None, y, *none[:3], gelu, maps[4], None, None, weight, bias, None, 1e-6
        ),
        "backward: branch": partial(
            *(kernels.rows_backward, maps[3], maps[4], y, shift, total, keep, False, maps[5], normed),
            *(gamma, weight, bias, next_weight, 1e-6),
        ),
        "forward: GELU": partial(kernels.gelu, y, shift, total),
        "backward: GELU": partial(kernels.gelu_backward, maps[3], y, shift),
        "forward: depth-wise": partial(
            kernels.depthwise_norm_gelu,
            maps[0],
            torch.empty(channels, 1, 3, 3, device="meta"),
            bias,
            weight,
            bias,
            1e-6,
        ),
    }
    steps["forward: norm, GELU"], steps["backward: norm, GELU"] = steps["forward: norm"], steps["backward: norm"]
    steps[step]()


REGISTERS = {  # at most, of a thread, in half precision
    "forward: norm": 136,
    "forward: norm, GELU": 168,
    "forward: branch": 168,
    "forward: GELU": 64,
    "forward: depth-wise": 128,
    "backward: norm": 100,
    "backward: norm, GELU": 128,
    "backward: branch": 200,
    "backward: GELU": 80,
}


def collected(step: str, channels: int, dtype: torch.dtype, target: str) -> Variant:
    """The kernel of a step."""
    with collecting(target) as found:
        launch(step, channels, dtype)
    (kernel,) = found.values()
    return kernel


@pytest.mark.parametrize("step", REGISTERS)
@pytest.mark.parametrize(
    ("target", "channels", "dtype"),
    [
        ("sm_90", 64, "float16"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *(("sm_80", channels, "bfloat16") for channels in (80, 512)),
                *(("sm_90", channels, "bfloat16") for channels in (128, 512, 1280, 4096)),
                *(("gfx942", channels, "float16") for channels in (64, 512, 1280)),
                *(("sm_90", channels, "float32") for channels in (64, 512, 4096)),
            )
        ),
    ],
)
def test_loads_are_wide_and_nothing_spills(step: str, target: str, channels: int, dtype: str) -> None:
    code, seconds = machine_code(collected(step, channels, DTYPES[dtype], target), target)
    assert seconds < 60  # 1 to 3 on a quiet machine
    assert code.spilled == 0
    most = REGISTERS[step] * (1 if dtype != "float32" else 1.25)
    assert code.registers <= (255 if channels == 4096 else most)
    loads = Counter(
        "wide" if ".128" in name or "dwordx4" in name else "narrow"
        for name in code.instructions
        if name.startswith(("LDG", "global_load", "buffer_load"))
    )
    assert loads["wide"] >= (1 if step.startswith("forward: GELU") else 2)


def test_a_step_has_one_kernel_for_each_width_whatever_the_number_of_rows() -> None:
    with collecting("sm_90") as found:
        for step in REGISTERS:
            for channels in WIDTHS:
                for count in (1, 16, 49, 3136, 2**22):
                    launch(step, channels, torch.bfloat16, count)
    kinds = Counter(kernel.name.rpartition(".")[2] for kernel in found.values())
    assert kinds == Counter(
        {
            "_rows_kernel": 3 * len(WIDTHS),
            "_rows_backward_kernel": 3 * len(WIDTHS),
            "_gelu_kernel": len(WIDTHS),
            "_gelu_backward_kernel": len(WIDTHS),
            "_depthwise_kernel": len(WIDTHS),
        }
    )


def test_a_new_size_of_image_compiles_nothing() -> None:
    config = replace(variant("internimage_pico"), depths=(1, 1, 1, 1), drop_path_rate=0.2)
    model, compiled = InternImage(config, backend="triton").train(), []
    with stubbed("triton") as driver:
        for size in ((1, 32, 32), (2, 64, 32), (1, 40, 72), (3, 33, 65), (1, 96, 64)):
            maps = model(torch.randn(size[0], 3, *size[1:])).maps
            torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])
            compiled.append(len(driver.compiled))
    assert compiled[0] == compiled[-1] > 8
