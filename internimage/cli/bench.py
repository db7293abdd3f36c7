"""`internimage bench`: how fast a model runs here, after a check that its answers are right."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    Precision,
    PrecisionOption,
    choose_backend,
    choose_device,
    choose_dtype,
    print_fields,
    print_json,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from internimage.backbones import InternImage
    from internimage.classification import Classifier
    from internimage.classification.head import HeadKind

    Network = TypeVar("Network", bound=nn.Module)

# Largest accepted difference from the reference, over the largest value of the reference.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
WARM_UP_RUNS = 3


def bench(
    model: ModelArgument,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 1,
    size: Annotated[
        int | None,
        typer.Option("--size", min=1, help="Side of the pictures; default: the model's.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed forward passes.")] = 30,
    fuse: Annotated[bool, typer.Option("--fuse", help="Pack the weights for inference first.")] = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile with torch.compile.")] = False,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = Precision.float32,
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure latency, throughput and memory.

    The answers are compared with those of the reference operators first; without agreement there are no figures. A name
    of the catalog or of a size is measured with random weights, so that nothing is downloaded.
    """
    import torch

    place, precision = choose_device(device), choose_dtype(dtype)
    network, default_size = _build(model, choose_backend(backend))
    network = network.to(place, precision).eval()
    side = size or default_size
    pixels = torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0)).to(place, precision)
    with torch.inference_mode():
        expected = _reference(network, pixels)
        if fuse:
            network.fuse()
        run = torch.compile(network) if compile_ else network
        difference = _compare(_last_output(run(pixels)), expected, dtype)
        latencies_ms, peak_mib = _measure(lambda: run(pixels), place, runs)
    p50, p99 = statistics.median(latencies_ms), _percentile(latencies_ms, 0.99)
    report = {
        "model": model,
        "device": str(place) if place.type == "cpu" else torch.cuda.get_device_name(place),
        "threads": torch.get_num_threads(),
        "dtype": dtype.value,
        "backend": backend,
        "fused": fuse,
        "compiled": compile_,
        "batch_size": batch_size,
        "size": side,
        "runs": runs,
        "difference_from_reference": difference,
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "images_per_second": round(batch_size / p50 * 1e3, 2),
        "peak_memory_mib": None if peak_mib is None else round(peak_mib, 1),
        "torch": torch.__version__,
    }
    if as_json:
        print_json(report)
    else:
        print_fields({name.replace("_", " "): value for name, value in report.items()})


def _build(name: str, backend: str) -> tuple[Classifier | InternImage, int]:
    """Return the model that MODEL names and the side of the pictures it was made for."""
    from internimage import zoo
    from internimage.backbones import VARIANTS, InternImage
    from internimage.classification import Classifier, ClassifierConfig

    if Path(name).exists():
        network = zoo.load(name, dtype=None, backend=backend)
        if not isinstance(network, Classifier | InternImage):
            raise ValueError(f"{name} is for {network.task}; bench takes classifiers and backbones")
        return network, network.config.preprocess.size if isinstance(network, Classifier) else 224
    if name in VARIANTS:
        return _with_random_offsets(zoo.create(name, backend=backend)), 224
    entry = zoo.info(name)
    if entry.is_built and entry.task != "classification":
        raise ValueError(f"{entry.name} is for {entry.task}; bench takes classifiers and backbones ({entry.backbone})")
    if not entry.is_built or entry.backbone_config is None or entry.num_classes is None:
        raise ValueError(f"{entry.name} is not built by this release; `internimage list` shows what is")
    head = cast("HeadKind", entry.head)  # a built classifier has one of the known heads
    config = ClassifierConfig(entry.backbone_config, entry.num_classes, head, entry.preprocess)
    return _with_random_offsets(Classifier(config, backend=backend)), config.preprocess.size


def _with_random_offsets(network: Network) -> Network:
    """Let a fresh model sample between pixels, as a trained one does: its offsets start at zero."""
    import torch

    for operator in _operators(network):
        for name in ("offset", "mask", "offset_mask"):
            layer = getattr(operator, name, None)
            if layer is not None:
                torch.nn.init.normal_(layer.weight, std=0.1 * layer.in_features**-0.5)
    return network


def _operators(network: nn.Module) -> list[Any]:
    from internimage.layers.deform_conv import DCNv3, DCNv4

    return [module for module in network.modules() if isinstance(module, DCNv3 | DCNv4)]


def _reference(network: nn.Module, pixels: Tensor) -> Tensor:
    """Run the network with the reference operators."""
    operators = _operators(network)
    wanted = [module.backend for module in operators]
    for module in operators:
        module.backend = "reference"
    outputs = _last_output(network(pixels))
    for module, name in zip(operators, wanted, strict=True):
        module.backend = name
    return outputs


def _compare(found: Tensor, expected: Tensor, dtype: Precision) -> float:
    """Return how far the answers are from those of the reference, relative to their largest value.

    Raises:
        ValueError: too far; no speed is measured then.
    """
    found, expected = found.double(), expected.double()
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCES[dtype.value]:  # also true for NaN
        raise ValueError(
            f"the answers differ from those of the reference by {difference:.3g} of their largest value (accepted: "
            f"{TOLERANCES[dtype.value]:g}), so no speed was measured; compare the backends of `internimage env`"
        )
    return difference


def _last_output(outputs: Any) -> Tensor:
    """The logits of a classifier, the last map of a backbone."""
    return outputs.maps[-1] if hasattr(outputs, "maps") else outputs


def _measure(run: Callable[[], Any], device: torch.device, runs: int) -> tuple[list[float], float | None]:
    """Return the latency of each timed run in ms, and the peak memory of all of them in MiB."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    for _ in range(WARM_UP_RUNS):
        run()
    wait()
    _reset_peak(device)
    latencies_ms = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        wait()
        latencies_ms.append((time.perf_counter() - started) * 1e3)
    return latencies_ms, _peak_mib(device)


def _reset_peak(device: torch.device) -> None:
    """Start the measurement of peak memory afresh, where the system can."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mib(device: torch.device) -> float | None:
    """Peak memory since `_reset_peak`: allocated on a GPU, resident on a CPU; None where it is not known."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if device.type != "cpu" or not status.exists():
        return None
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that is not below this share of the values."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
