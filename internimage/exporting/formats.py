"""The formats of exported files by their suffix: what each is called, needs, writes, and how its files run here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from internimage.errors import MissingExtra
from internimage.exporting.options import WriteOptions
from internimage.exporting.suffixes import MODULES, suffix_of
from internimage.flow import ExportGraph

EXTRAS = {".engine": "tensorrt"}  # of formats that do not come with "export"


class Runner(Protocol):
    """An exported file that is open in its runtime."""

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the inputs of the graph's description, on the CPU, to its outputs."""
        ...


@dataclass(frozen=True)
class Format:
    """A kind of exported file.

    Args:
        name: what it is called, for example "ONNX".
        runtime: what runs it here, for example "onnxruntime".
        packages: packages that writing and running need, as they are imported.
        extra: the extra of this package that installs them.
        dtypes: values of `WriteOptions.dtype` that it takes.
        write: (graph, options, path) -> what is worth knowing of the file, JSON types; the folder of `path` is its own
            meanwhile: whatever is left there goes beside the file, and must be named after it.
        open: path -> the file, ready to run; it has the description inside or beside it.
        description: path -> the text of `document.to_text` in a file.
        check: raises ValueError for options that the format does not take, before anything is computed.
        why_not_run: () -> why its files cannot run on this machine, None where they can.
    """

    name: str
    runtime: str
    packages: tuple[str, ...]
    extra: str
    dtypes: tuple[str, ...]
    write: Callable[[ExportGraph, WriteOptions, Path], dict[str, object]]
    open: Callable[[Path], Runner]
    description: Callable[[Path], str]
    check: Callable[[WriteOptions], object] = field(default=lambda options: None)
    why_not_run: Callable[[], str | None] = field(default=lambda: None)


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix names.

    Raises:
        ValueError: no format has this suffix.
        MissingExtra: its packages are not installed.
    """
    suffix = suffix_of(path.name)
    if suffix is None:
        known = ", ".join(MODULES)
        raise ValueError(f"cannot tell the format of {path.name!r} by its suffix; name the file with one of {known}")
    try:
        found: Format = importlib.import_module(MODULES[suffix]).FORMAT
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "internimage":
            raise
        raise MissingExtra(package, EXTRAS.get(suffix, "export"), f"a {suffix} file") from error
    for package in found.packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, found.extra, f"{found.name} export")
    return found
