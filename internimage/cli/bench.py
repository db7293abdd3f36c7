"""`internimage bench`: how fast a model of any task runs here, after a check that its results are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

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
    note,
    print_fields,
    print_json,
    print_table,
    read_size_hw,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from internimage.cli.measuring.models import Network

# Largest accepted difference from the reference, over the largest value of the reference.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
WARM_UP_RUNS = 3
_ABOUT_RANDOM = (
    "A detector finds more with them than in most images, and takes longer; what it found is among the results. "
    "`internimage predict` downloads the published weights."
)


def bench(
    model: ModelArgument = "",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")] = 1,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Pixels of the input, 224 or 800x1344; default: the model's.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed forward passes.")] = 30,
    fuse: Annotated[bool, typer.Option("--fuse", help="Pack the weights for inference first.")] = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile with torch.compile.")] = False,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = "float32",
    backend: BackendOption = "auto",
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure the launch settings of the GPU's kernels and keep better ones.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure latency, throughput and memory.

    The results are compared with those of the reference operators first; without agreement nothing is measured (files
    of `internimage export` were compared when they were written). Weights
    are those of the file, of this package or of the cache; nothing is downloaded: a name whose weights are not on this
    machine is measured with random ones. The input is a scene with a few objects. With --tune no model is measured.
    """
    if tune:
        return _tune(device, as_json)
    if not model:
        raise typer.BadParameter("name a model, or measure launch settings with --tune", param_hint="MODEL")
    import torch

    from internimage.cli.measuring.models import RANDOM, model_to_measure, scene, usual_hw
    from internimage.cli.measuring.timing import interleave, peak_mib, reset_peak
    from internimage.exporting.suffixes import suffix_of

    is_exported = suffix_of(model) is not None
    target, precision = _target(device, is_exported, fuse or compile_), choose_dtype(dtype)
    network, weights = model_to_measure(model, choose_backend(backend))
    network = network.to(target, precision).eval()
    size_hw = usual_hw(network) if size is None else read_size_hw(size)
    pixels = scene(network, batch_size, size_hw).to(target, precision)
    with torch.inference_mode():
        expected = None if is_exported else _reference(network, pixels)
        if fuse:
            network.fuse()
        run = torch.compile(network) if compile_ else network
        found, objects = _comparable(network, run, pixels)
        difference = None if expected is None else _compare(found, expected, dtype)
        reset_peak(target)
        latency = interleave({model: lambda: run(pixels)}, device=target, rounds=runs, warm_up=WARM_UP_RUNS)[model]
        memory_mib = peak_mib(target)
    report = {
        "model": model,
        "weights": weights,
        "device": str(target) if target.type == "cpu" else torch.cuda.get_device_name(target),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "backend": backend,
        "fused": fuse,
        "compiled": compile_,
        "batch_size": batch_size,
        "size": size_hw[0] if size_hw[0] == size_hw[1] else list(size_hw),
        "runs": runs,
        "objects_found": objects,
        "difference_from_reference": difference,
        "p50_ms": round(latency.p50, 3),
        "p99_ms": round(latency.p99, 3),
        "images_per_second": round(batch_size / latency.p50 * 1e3, 2),
        "peak_memory_mib": None if memory_mib is None else round(memory_mib, 1),
        "torch": torch.__version__,
    }
    print_json(report) if as_json else print_fields({name.replace("_", " "): report[name] for name in report})
    if weights == RANDOM:
        note("random weights: those of this model are not on this machine. " + _ABOUT_RANDOM)


def _target(device: str, is_exported: bool, prepares: bool) -> torch.device:
    """Return where to measure; exported files take their inputs on the CPU, and are as they were written."""
    if is_exported and prepares:
        raise typer.BadParameter("an exported file runs as it was written; leave --fuse and --compile out")
    return choose_device("cpu" if is_exported and device == "auto" else device)


def _tune(device: str, as_json: bool) -> None:
    """Measure the launch settings of a GPU's kernels, show and save them."""
    from internimage.cli.measuring.tuning import keep, tune

    target = choose_device(device)
    found = list(tune(target))
    file = keep(target, found)
    rows = [asdict(row) for row in found]
    if as_json:
        print_json(rows)
    else:
        print_table([name.replace("_", " ") for name in rows[0]], [list(row.values()) for row in rows])
    note(f"settings that are clearly faster than the table's are in {file}, which is read from now on")


def _reference(network: Network, pixels: Tensor) -> list[Tensor]:
    """Run the network with the reference operators."""
    from internimage.cli.measuring.models import operators

    found = operators(network)
    wanted = [module.backend for module in found]
    for module in found:
        module.backend = "reference"
    outputs, _ = _comparable(network, network, pixels)
    for module, name in zip(found, wanted, strict=True):
        module.backend = name
    return outputs


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor], dtype: Precision) -> float:
    """Return how far outputs are from those of the reference, relative to their largest value.

    Raises:
        ValueError: too far; no speed is measured then.
    """
    differences = [
        float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp_min(1e-12))
        for ours, theirs in zip(found, expected, strict=True)
    ]
    wrong = [difference for difference in differences if not difference <= TOLERANCES[dtype]]  # NaN, too
    if wrong:
        raise ValueError(
            f"the answers differ from those of the reference by {wrong[0]:.3g} of their largest value (accepted: "
            f"{TOLERANCES[dtype]:g}), so no speed was measured; compare the backends of `internimage env`"
        )
    return max(differences)


def _comparable(network: Network, run: Callable[[Tensor], Any], pixels: Tensor) -> tuple[list[Tensor], int | None]:
    """Run a network; return what two backends must agree on, and how many objects it works on to the end, if any."""
    from internimage import tasks
    from internimage.exporting.file_model import FileModel
    from internimage.flow import TaskModel

    outputs = run(pixels)
    if not isinstance(network, TaskModel):
        return list(outputs.maps), None
    task = tasks.of_model(network)
    num_objects = None if task.num_objects is None else task.num_objects(outputs)
    if task.comparable is None or isinstance(network, FileModel):  # its parts cannot be run on their own
        return [outputs], num_objects
    return task.comparable(network, outputs, pixels), num_objects
