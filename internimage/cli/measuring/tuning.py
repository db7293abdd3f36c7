"""Better launch settings of the Triton kernels for one GPU: measured on request, kept for later processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from internimage.cli.measuring.timing import interleave
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.runtime.triton import launch
from internimage.ops.sampling import Window

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WIDTHS = {"window": (16, 32), "levels": (32,)}
LEVELS = (100, 134, 50, 67, 25, 34, 13, 17)
LAUNCHES = 10  # in a row for each time, so that the device does not wait for Python
MARGIN = 0.97  # of the time with the table's settings: what is faster by less is noise


@dataclass(frozen=True)
class Found:
    """The best settings of a kernel, and milliseconds with them and with those of the table."""

    kernel: str
    tile: int
    warps: int
    milliseconds: float
    milliseconds_before: float


def tune(device: torch.device, seconds: float = 0.5) -> Iterator[Found]:
    """Measure every kernel with every candidate, for at least `seconds` each.

    Raises:
        ValueError: `device` is no GPU.
    """
    if device.type != "cuda":
        raise ValueError(
            f"tuning measures the kernels of a GPU, given {device}; those of the CPU have no such settings"
        )
    for operator, widths in WIDTHS.items():
        for dtype in DTYPES:
            for width in widths:
                for direction, run in _runs(operator, dtype, width, device).items():
                    usual = launch.default_settings(operator, direction, dtype)
                    tried = {usual, *launch.candidates(direction)}
                    calls = {str(settings): _repeated(run, settings) for settings in tried}
                    times = interleave(calls, device=device, seconds=seconds)
                    best = min(tried, key=lambda settings: times[str(settings)].best)
                    milliseconds = [times[str(settings)].best / LAUNCHES for settings in (best, usual)]
                    yield Found(launch.settings_key(operator, direction, dtype, width), *best, *milliseconds)


def keep(device: torch.device, found: list[Found]) -> Path:
    """Save what is clearly better than the table, for later processes; returns the file."""
    better = {
        row.kernel: launch.Settings(row.tile, row.warps)
        for row in found
        if row.milliseconds < MARGIN * row.milliseconds_before
    }
    return launch.save_settings(launch.device_name(device), better)


def _repeated(run: Callable[[], object], settings: launch.Settings) -> Callable[[], None]:
    def call() -> None:
        with launch.forced(settings):
            for _ in range(LAUNCHES):
                run()

    return call


def _runs(operator: str, dtype: torch.dtype, width: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Both passes of an operator at a usual shape, by direction."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    if operator == "window":
        from internimage.ops.deform_conv_v3 import kernel_triton as window

        groups, sizes = 64 // width, (64, 56, 56)
        settings = Window((3, 3), (1, 1), (1, 1), (1, 1), groups, 1.0, remove_center=False, softmax=True)
        inputs = [random(*sizes, channels) for channels in (64, 18 * groups, 9 * groups)]
        return _both(window.forward, window.backward, random(*sizes, 64), *inputs, settings)
    from internimage.ops.deform_attn import kernel_triton as attention

    settings = Levels(LEVELS, normalized=True, softmax=True)
    pixels = sum(height * width for height, width in settings.shapes)
    inputs = [random(1, pixels, 8, width), torch.rand(1, pixels, 8, 4, 4, 2, device=device).to(dtype)]
    inputs.append(random(1, pixels, 8, 4, 4))
    return _both(attention.forward, attention.backward, random(1, pixels, 8 * width), *inputs, settings)


def _both(
    forward: Callable[..., object], backward: Callable[..., object], grad: torch.Tensor, *inputs: object
) -> dict[str, Callable[[], object]]:
    return {"forward": lambda: forward(*inputs), "backward": lambda: backward(grad, *inputs)}
