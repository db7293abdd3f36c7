"""One block of each level of InternImage-T and FlashInternImage-T, with and without the fused inference steps.

Run: `python -m benchmarks.run --only blocks [--device cuda]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.record import bar_plot, print_table, save
from internimage.backbones import variant
from internimage.backbones.blocks import Block
from internimage.backbones.fused import FusedBlock
from internimage.cli.measuring.timing import interleave
from internimage.layers.fused import fuse

VARIANTS = ("internimage_t", "flash_internimage_t")
SIDE = 56  # of level 0 at 224 pixels
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def build(name: str, level: int, device: str, dtype: torch.dtype, backend: str) -> Block:
    """Return a block whose offsets and weights are away from their zero start."""
    torch.manual_seed(level)
    block = Block(variant(name), level, drop_path_rate=0.0, backend=backend).eval()
    for key, parameter in block.dcn.named_parameters():
        if key.startswith(("offset", "mask")) and key.endswith("weight"):
            nn.init.normal_(parameter, std=0.02)
    return block.to(device, dtype)


def backward(block: Block, x: Tensor) -> Callable[[], None]:
    """Return a function that runs forward and backward."""
    x = x.clone().requires_grad_()
    upstream = torch.randn_like(x)

    def run() -> None:
        block(x).backward(upstream)
        block.zero_grad(set_to_none=True)
        x.grad = None

    return run


def measure(name: str, level: int, batch: int, device: str, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Check one block against its reference backend and time its forms."""
    config, side = variant(name), SIDE // 2**level
    x = torch.randn(batch, side, side, config.widths[level], device=device, dtype=dtype)
    plain, reference = (build(name, level, device, dtype, backend) for backend in ("auto", "reference"))
    fused = build(name, level, device, dtype, "auto")
    fuse(fused)
    assert type(fused) is FusedBlock
    with torch.inference_mode():
        expected = build(name, level, device, torch.float32, "reference")(x.float())
        error = float((fused(x).float() - expected).norm() / expected.norm())
        if not error <= TOLERANCE[dtype]:
            raise SystemExit(f"correctness check failed: {name} level {level} {dtype} differs by {error:.2e}")
        forms = {"reference": lambda: reference(x), "eager": lambda: plain(x), "fused": lambda: fused(x)}
        forward = interleave(forms, device=device, seconds=seconds)
    both = interleave(
        {"reference": backward(reference, x), "eager": backward(plain, x)}, device=device, seconds=seconds
    )
    return {
        "model": name,
        "level": level,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        **{f"{form}_ms": timing.p50 for form, timing in forward.items()},
        "fused_over_reference": forward["reference"].p50 / forward["fused"].p50,
        "backward_ms": both["eager"].p50,
        "backward_over_reference": both["reference"].p50 / both["eager"].p50,
        "relative_error": error,
    }


def run(device: str, *, seconds: float = 1.0) -> None:
    """Check, measure, print, save and plot."""
    dtypes = (torch.float32, torch.bfloat16) if device == "cpu" else (torch.float32, torch.float16, torch.bfloat16)
    rows = [
        measure(name, level, batch, device, dtype, seconds)
        for dtype in dtypes
        for name in VARIANTS
        for batch in (1, 8)
        for level in range(4)
    ]
    print_table(f"one block on {device} (ratios: times faster than the reference backend)", rows)
    save("blocks", device, rows)
    shown = [row for row in rows if row["dtype"] == "float32" and row["model"] == "internimage_t"]
    bar_plot(
        "blocks",
        device,
        f"One InternImage-T block, float32, {device}",
        [f"level {row['level']}, batch {row['batch']}" for row in shown],
        {form: [row[f"{form}_ms"] for row in shown] for form in ("reference", "eager", "fused")},
        "milliseconds (median)",
    )
