"""The format `.aoti.pt2`: a program that AOTInductor compiled to machine code of this processor, for Python and C++."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from internimage.checkpoints.header import HEADER_KEY
from internimage.exporting.document import to_text
from internimage.exporting.formats import Format
from internimage.exporting.options import WriteOptions
from internimage.exporting.programs.file import check as check_program
from internimage.exporting.programs.file import traced
from internimage.exporting.programs.scan import document_in
from internimage.flow import ExportGraph

COMPILERS = ("g++", "clang++", "c++")

logger = logging.getLogger(__name__)


def check(options: WriteOptions) -> None:
    """Raise for what cannot be compiled.

    Raises:
        FileNotFoundError: there is no C++ compiler.
        ValueError: an opset is asked for.
    """
    check_program(options)
    if not any(shutil.which(name) for name in COMPILERS):
        raise FileNotFoundError("AOTInductor needs a C++ compiler; install g++, or write a .pt2 file without one")


def write(graph: ExportGraph, options: WriteOptions, path: Path) -> dict[str, object]:
    """Write a graph, see `Format.write`: minutes, for every kernel is compiled."""
    program, how = traced(graph, options)
    notes: dict[str, object] = {"format": FORMAT.name, **how, "processor": torch.backends.cpu.get_cpu_capability()}
    settings = {
        "aot_inductor.metadata": {HEADER_KEY: to_text(graph, notes)},
        "aot_inductor.compile_wrapper_opt_level": "O0",  # the code around the kernels: nothing gained, half of the time
    }
    with tempfile.TemporaryDirectory() as folder:
        made = torch._inductor.aoti_compile_and_package(
            program, package_path=str(Path(folder) / "model.pt2"), inductor_configs=settings
        )
        shutil.move(made, path)
    return notes


class CompiledRunner:
    """A compiled program on the CPU.

    Args:
        path: the file, whose machine code is run.
    """

    def __init__(self, path: Path) -> None:
        logger.warning("%s is machine code, which runs with your rights; open no such file that you do not trust", path)
        self.module = torch._inductor.aoti_load_package(str(path))

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `Runner`."""
        with torch.inference_mode():
            found = self.module(*inputs)
        return (found,) if isinstance(found, Tensor) else tuple(found)


FORMAT = Format(
    name="AOTInductor package",
    runtime=f"torch {torch.__version__}, compiled",
    packages=("torch",),
    extra="export",
    dtypes=("float32", "float16"),
    write=write,
    open=CompiledRunner,
    description=document_in,
    check=check,
)
