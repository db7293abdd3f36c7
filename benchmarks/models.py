"""Whole models: InternImage beside its own linear layers, its reference backend, ConvNeXt and Swin.

Run: `python -m benchmarks.run --only models [--device cuda]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.graphs import replayed
from benchmarks.record import bar_plot, print_table, save
from internimage.backbones import InternImage, variant
from internimage.cli.measuring.models import scatter_samples
from internimage.cli.measuring.timing import interleave, peak_mib, reset_peak

PEERS = ("convnext_tiny", "swin_tiny_patch4_window7_224")
SIZE = 224


def build(name: str, device: str, dtype: torch.dtype, backend: str = "auto") -> InternImage:
    """Return a backbone with offsets and weights away from their zero start, so that samples are scattered."""
    torch.manual_seed(0)
    model = InternImage(variant(name), backend=backend).eval()
    scatter_samples(model)
    return model.to(device, dtype)


def linear_layers(model: nn.Module, pixels: Tensor) -> Callable[[], None]:
    """Return a function that runs only the linear layers of `model`, in order, at the shapes `pixels` gives them."""
    calls: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, inputs: calls.append((layer, torch.randn_like(inputs[0]))))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    model(pixels)
    for hook in hooks:
        hook.remove()

    def run() -> None:
        for layer, x in calls:
            F.linear(x, layer.weight, layer.bias)

    return run


def check(device: str, dtype: torch.dtype) -> float:
    """Compare the fused model with the reference backend in float32; raise when they differ, return the difference."""
    pixels = torch.randn(2, 3, SIZE, SIZE, device=device)
    expected = build("internimage_t", device, torch.float32, "reference")(pixels).maps[-1]
    got = build("internimage_t", device, dtype).fuse()(pixels.to(dtype)).maps[-1].float()
    error = float((got - expected).abs().max() / expected.abs().max())
    limit = 1e-3 if dtype == torch.float32 else 0.15
    if not error <= limit:
        raise SystemExit(f"correctness check failed: {dtype} differs from the reference by {error:.2e} (limit {limit})")
    return error


def training_step(model: nn.Module, pixels: Tensor) -> Callable[[], None]:
    """Return a function that runs forward, backward and an AdamW step on the mean square of the last map."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def run() -> None:
        outputs = model(pixels)
        last = outputs.maps[-1] if hasattr(outputs, "maps") else outputs
        last.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def contenders(device: str, batch: int, dtype: torch.dtype, with_reference: bool) -> dict[str, Callable[[], object]]:
    """Return the functions to time, by name."""
    pixels = torch.randn(batch, 3, SIZE, SIZE, device=device, dtype=dtype)
    plain = build("internimage_t", device, dtype)
    models: dict[str, nn.Module] = {
        "internimage_t": plain,
        "internimage_t fused": build("internimage_t", device, dtype).fuse(),
        "internimage_t float32": build("internimage_t", device, torch.float32),
        "internimage_t fused float32": build("internimage_t", device, torch.float32).fuse(),
        "flash_internimage_t fused": build("flash_internimage_t", device, dtype).fuse(),
    }
    if device == "cuda":
        models |= {name: build(name, device, dtype) for name in ("internimage_b", "flash_internimage_b")}
    if with_reference:
        models["internimage_t reference"] = build("internimage_t", device, dtype, "reference")
    for name in PEERS:
        models[name] = timm.create_model(name, num_classes=0).eval().to(device, dtype)
    if dtype == torch.float32:
        del models["internimage_t float32"], models["internimage_t fused float32"]
    functions: dict[str, Callable[[], object]] = {"linear layers alone": linear_layers(plain, pixels)}
    for name, model in models.items():
        inputs = pixels.float() if name.endswith("float32") else pixels
        functions[name] = lambda model=model, inputs=inputs: model(inputs)
    if device == "cuda":
        for name in ("internimage_t", "internimage_t fused", "flash_internimage_t fused", *PEERS):
            functions[f"{name} cuda graph"] = replayed(functions[name])
        for name in ("internimage_t", "flash_internimage_t"):
            model = build(name, device, dtype).fuse(graphs=1)
            functions[f"{name} fused, graphs=1"] = lambda model=model: model(pixels)
    return functions


def compiled_contenders(device: str, batch: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Return compiled networks by name; the first call of each takes up to minutes."""
    pixels = torch.randn(batch, 3, SIZE, SIZE, device=device, dtype=dtype)
    models: dict[str, nn.Module] = {
        PEERS[0]: timm.create_model(PEERS[0], num_classes=0).eval().to(device, dtype),
        "internimage_t": build("internimage_t", device, dtype),
        "flash_internimage_t fused": build("flash_internimage_t", device, dtype).fuse(),
    }
    compiled = {name: torch.compile(model) for name, model in models.items()}
    return {name: lambda model=model: model(pixels) for name, model in compiled.items()}


def training_contenders(device: str, batch: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Return one training step of each model, by name; half precision runs under autocast."""
    pixels = torch.randn(batch, 3, SIZE, SIZE, device=device)
    models: dict[str, nn.Module] = {"internimage_t": build("internimage_t", device, torch.float32)}
    for name in PEERS:
        models[name] = timm.create_model(name, num_classes=0).to(device)
    steps = {name: training_step(model, pixels) for name, model in models.items()}

    def under_autocast(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                step()

        return run

    return {name: under_autocast(step) for name, step in steps.items()}


def measure(
    functions: dict[str, Callable[[], object]], device: str, batch: int, dtype: torch.dtype, what: str, seconds: float
) -> list[dict[str, Any]]:
    """Time the functions and return one line of the table for each."""
    timings = interleave(functions, device=device, seconds=seconds)
    rows = []
    for name, timing in timings.items():
        line = {
            "what": what,
            "model": name,
            "batch": batch,
            "dtype": str(dtype).removeprefix("torch."),
            "p50_ms": timing.p50,
            "p99_ms": timing.p99,
            "images_per_second": 1e3 * batch / timing.p50,
            "over_convnext": timing.p50 / timings[PEERS[0]].p50,
        }
        if "linear layers alone" in timings and (name.startswith("internimage_t") or "linear" in name):
            line["over_linear"] = timing.p50 / timings["linear layers alone"].p50
        if device == "cuda":
            reset_peak(device)
            functions[name]()
            line["peak_mib"] = peak_mib(device)
        rows.append(line)
    return rows


def run(device: str, *, seconds: float = 10.0, dtypes: Sequence[torch.dtype] = ()) -> None:
    """Check, measure, print, save and plot; a run that is stopped keeps what it has measured."""
    rows: list[dict[str, Any]] = []
    errors: dict[str, float] = {}
    usual = (torch.float32, torch.bfloat16) if device == "cpu" else (torch.float32, torch.float16, torch.bfloat16)
    batches = (1, 8) if device == "cpu" else (1, 64)
    try:
        for dtype in dtypes or usual:
            with torch.inference_mode():
                errors[str(dtype)] = check(device, dtype)
                for batch in batches:
                    functions = contenders(device, batch, dtype, with_reference=dtype == torch.float32)
                    rows += measure(functions, device, batch, dtype, "forward", seconds)
            trained = torch.bfloat16 if dtype == torch.float16 else dtype  # which needs no scaling of the loss
            steps = training_contenders(device, batches[-1], trained)
            rows += measure(steps, device, batches[-1], trained, "training step", seconds)
        if device == "cuda":
            dtype = (dtypes or usual)[0]
            with torch.inference_mode():
                functions = compiled_contenders(device, batches[-1], dtype)
                rows += measure(functions, device, batches[-1], dtype, "compiled forward", seconds)
    finally:
        _report(rows, device, errors)


def _report(rows: list[dict[str, Any]], device: str, errors: dict[str, float]) -> None:
    forward = [row for row in rows if row["what"] == "forward"]
    print_table(f"InternImage-T at {SIZE} x {SIZE} on {device}: forward", forward)
    for what in ("training step", "compiled forward"):
        print_table(what, [row for row in rows if row["what"] == what])
    save("models", device, rows, check_relative_error=errors)
    shown = [row for row in forward if row["dtype"] == forward[0]["dtype"]]
    models = list(dict.fromkeys(row["model"] for row in shown))
    times = {(row["model"], row["batch"]): row["p50_ms"] / row["batch"] for row in shown}
    bar_plot(
        "models",
        device,
        f"InternImage-T and peers, {SIZE} px, {shown[0]['dtype'] if shown else 'nothing'}, {device}",
        models,
        {
            f"batch {b}": [times.get((name, b), 0.0) for name in models]
            for b in dict.fromkeys(row["batch"] for row in shown)
        },
        "milliseconds per image (median)",
    )
