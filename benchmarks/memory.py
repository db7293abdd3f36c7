"""Peak memory of detectors and segmentors on one image, beside what cannot be saved.

That is parameters, and the inputs and outputs of the layer where these are largest when every layer is computed in one
piece, as in training. `fuse()` adds packed copies of the linear layers, so both forms are measured, each in a fresh
process.

Run: `python -m benchmarks.run --only memory` (Linux).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import detection, segmentation
from benchmarks.record import bar_plot, print_table, save
from benchmarks.stages import largest_activations, parameter_bytes, peak_bytes
from internimage.cli.measuring.timing import reset_peak

SUITES = {"detection": detection, "segmentation": segmentation}
WARM_SIZE = (64, 64)


def predicting(suite: str, name: str, is_fused: bool, device: str, size_hw: tuple[int, int]) -> Callable[[], object]:
    """Return forward and post-processing of one image."""
    call = SUITES[suite].measured(name, device, size_hw)
    if not is_fused:
        call.model.train().eval()  # training drops the packed copies
    return call.run


def measure(suite: str, name: str, device: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Measure one model in both forms."""
    model, pixels = SUITES[suite].build(name, device).requires_grad_(False), torch.randn(1, 3, *size_hw, device=device)
    with torch.enable_grad():  # inference computes large layers in parts
        activations = largest_activations(model, partial(model, pixels))
    parameters = parameter_bytes(model)
    del model
    row: dict[str, Any] = {"model": name, "parameters_mib": parameters / 2**20, "layer_mib": activations / 2**20}
    for form, is_fused in (("plain", False), ("fused", True)):
        if device == "cuda":
            call = predicting(suite, name, is_fused, device, size_hw)
            reset_peak(device)
            with torch.inference_mode():
                call()
            peak = torch.cuda.max_memory_allocated()
        else:
            what = (suite, name, is_fused, device)
            peak = peak_bytes(predicting, *what, size_hw, warm=(*what, WARM_SIZE), threads=torch.get_num_threads())
        row[f"{form}_peak_mib"] = peak / 2**20
        row[f"{form}_over_floor"] = peak / (parameters + activations)
    return row


def run(device: str, *, seconds: float = 0.0) -> None:
    """Measure, print, save and plot; `seconds` is not needed."""
    rows = []
    for suite, module in SUITES.items():
        for name in module.MODELS:
            module.check(name, device)
            rows.append(measure(suite, name, device, module.SIZE))
    print_table(f"peak memory on {device}", rows)
    save("memory", device, rows, notes=__doc__)
    bar_plot(
        "memory",
        device,
        f"Peak memory of one image, {device}",
        [row["model"] for row in rows],
        {
            "parameters + largest layer": [row["parameters_mib"] + row["layer_mib"] for row in rows],
            "plain": [row["plain_peak_mib"] for row in rows],
            "fused": [row["fused_peak_mib"] for row in rows],
        },
        "MiB",
    )
