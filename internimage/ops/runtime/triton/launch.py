"""How kernels are launched: with settings from a table, so that a first call or a new size tunes nothing.

`DEFAULTS` holds everywhere; `internimage bench --tune` measures what is better on one device and keeps it in the user's
cache, which is read at the first launch. This file imports no triton.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from internimage.files import cache_folder, json_text, replacing
from internimage.ops.runtime.triton.support import device_of, interpreting

logger = logging.getLogger(__name__)

MAX_LINES = 65535  # of the second axis of a grid
MAX_TILE = 2**16


class Settings(NamedTuple):
    """How a kernel is cut into programs.

    Args:
        tile: elements of a program, rows times channels; a power of two.
        warps: warps of a program; a power of two.
    """

    tile: int
    warps: int


# Operator, direction and bytes of an element to elements of a thread and warps, measured on an H100. Forward, a thread
# holds 16 bytes of a corner; backward, where atomics set the pace, small programs finish soonest.
DEFAULTS = {
    ("window", "forward", 2): (8, 4),
    ("window", "forward", 4): (4, 4),
    ("window", "backward", 2): (4, 1),
    ("window", "backward", 4): (4, 2),
    ("levels", "forward", 2): (8, 1),
    ("levels", "forward", 4): (4, 2),
    ("levels", "backward", 2): (4, 1),
    ("levels", "backward", 4): (4, 2),
}
_forced: list[Settings] = []


def lanes() -> int:
    """Threads of a warp."""
    return 64 if torch.version.hip else 32


def candidates(direction: str) -> list[Settings]:
    """What tuning tries."""
    elements = (4, 8, 16) if direction == "forward" else (2, 4, 8)
    return [Settings(lanes() * warps * each, warps) for warps in (1, 2, 4, 8) for each in elements]


def settings_of(operator: str, direction: str, dtype: torch.dtype, width: int, device: torch.device) -> Settings:
    """The settings of a kernel.

    Args:
        operator: "window" for dcnv3 and dcnv4, "levels" for ms_deform_attn.
        direction: "forward" or "backward".
        dtype: type of the maps.
        width: channels of a group.
        device: where it runs.
    """
    return _forced[0] if _forced else settings_of_device(operator, direction, dtype, width, device)


@functools.lru_cache(maxsize=256)
def settings_of_device(operator: str, direction: str, dtype: torch.dtype, width: int, device: torch.device) -> Settings:
    """Those of the device's file, else of the table; the arguments are those of `settings_of`."""
    if device.type == "cuda" and torch.cuda.is_available():
        tuned = tuned_settings(device_name(device)).get(settings_key(operator, direction, dtype, width))
        if tuned is not None:
            return tuned
    return default_settings(operator, direction, dtype)


def default_settings(operator: str, direction: str, dtype: torch.dtype) -> Settings:
    """The settings of the table."""
    if interpreting():
        return Settings(1024, 4)
    elements, warps = DEFAULTS[operator, direction, dtype.itemsize]
    return Settings(lanes() * warps * elements, warps)


@contextlib.contextmanager
def forced(settings: Settings) -> Iterator[None]:
    """Launch everything with these settings, to measure them."""
    _forced.append(settings)
    try:
        yield
    finally:
        _forced.pop()


def settings_key(operator: str, direction: str, dtype: torch.dtype, width: int) -> str:
    """The name of a kernel in a file of settings, such as "window forward float16 16"."""
    return f"{operator} {direction} {str(dtype).removeprefix('torch.')} {width}"


def device_name(device: torch.device) -> str:
    """The name of a GPU."""
    return torch.cuda.get_device_name(device)


def settings_file(device: str) -> Path:
    """Where the settings of a device lie that `internimage bench --tune` found with this version of triton."""
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return cache_folder() / "launch" / f"{name}-triton-{metadata.version('triton')}.json"


@functools.lru_cache(maxsize=16)
def tuned_settings(device: str) -> dict[str, Settings]:
    """What the file of a device holds; a file that cannot be used counts as none, with a warning."""
    file = settings_file(device)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        found = {name: Settings(*row) for name, row in rows.items()}
        if all(_fits(settings) for settings in found.values()):
            return found
        reason = f"a tile must be a power of two up to {MAX_TILE}, warps 1 to 32"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)
    logger.warning("%s is not used: %s; `internimage bench --tune` writes it anew", file, reason)
    return {}


def _fits(settings: Settings) -> bool:
    return all(
        isinstance(value, int) and 1 <= value <= most and value & (value - 1) == 0
        for value, most in zip(settings, (MAX_TILE, 32), strict=True)
    )


def save_settings(device: str, settings: Mapping[str, Settings]) -> Path:
    """Add to the file of a device; returns where it lies."""
    file = settings_file(device)
    joined = {**tuned_settings(device), **settings}
    with replacing(file) as unfinished:
        unfinished.write_text(json_text(joined, indent=1), encoding="utf-8")
    tuned_settings.cache_clear()
    settings_of_device.cache_clear()
    return file


def launch(
    kernel: Any,
    settings: Settings,
    x: Tensor,
    others: tuple[Tensor | float, ...],
    sizes: tuple[float, ...],
    constants: dict[str, int | bool],
) -> None:
    """Run a kernel on all rows of all images.

    Args:
        kernel: what `triton.jit` made.
        settings: how it is cut into programs.
        x: its first argument, on the device where it runs.
        others: the arguments after it, up to the sizes.
        sizes: the rest: the number of images, that of rows of each (output pixels and groups), and more.
        constants: its constants but TILE; D_PAD is among them.
    """
    images, rows = sizes[:2]
    lines = min(images, MAX_LINES)
    block = max(1, settings.tile // constants["D_PAD"])
    grid = (-(-rows // block), lines, -(-images // lines))
    constants = {**constants, "TILE": settings.tile, "num_warps": settings.warps}
    if is_real(x):
        with device_of(x):
            kernel[grid](x, *others, *sizes, **constants)
    else:  # a compiler traces the launch, to make it itself
        torch.library.wrap_triton(kernel)[grid](x, *others, *sizes, **constants)


def is_real(tensor: Tensor) -> bool:
    """Whether a tensor has values; a compiler traces with others."""
    return type(tensor) is Tensor or type(tensor) is Parameter


def common_vector(itemsize: int, *counts: int) -> int:
    """Elements of the longest load, up to 16 bytes, that divides all counts."""
    vector = 16 // itemsize
    while any(count % vector for count in counts):
        vector //= 2
    return vector
