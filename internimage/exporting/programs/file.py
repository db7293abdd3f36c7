"""The format `.pt2`: a traced program of torch.export, which runs wherever torch is, with or without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from internimage.checkpoints.header import HEADER_KEY
from internimage.exporting.document import to_text
from internimage.exporting.formats import Format
from internimage.exporting.graphs import trace
from internimage.exporting.halves import HalfGraph
from internimage.exporting.options import WriteOptions
from internimage.exporting.programs.scan import document_in, refuse_code
from internimage.flow import ExportGraph

# What torch keeps of the source code that it traced: names of classes and functions, lines of files.
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node")


def traced(graph: ExportGraph, options: WriteOptions) -> tuple[ExportedProgram, dict[str, object]]:
    """Return the program of a graph, and how it is written."""
    operators = "grid_sample" if options.operators == "auto" else options.operators
    program = trace(HalfGraph(graph) if options.dtype == "float16" else graph, operators=operators)
    return program, {"dtype": options.dtype, "operators": operators, "torch": torch.__version__}


def check(options: WriteOptions) -> None:
    """Raise for what files of torch do not take.

    Raises:
        ValueError: an opset is asked for.
    """
    if options.opset is not None:
        raise ValueError(f"opset is for ONNX files, given {options.opset} for a file of torch; leave it out")


def write(graph: ExportGraph, options: WriteOptions, path: Path) -> dict[str, object]:
    """Write a graph, see `Format.write`; without example inputs and source lines, which `refuse_code` keeps out."""
    program, how = traced(graph, options)
    for node in program.graph.nodes:
        for name in TRACES:
            node.meta.pop(name, None)
    program.example_inputs = None
    notes: dict[str, object] = {"format": FORMAT.name, **how}
    torch.export.save(program, path, extra_files={HEADER_KEY: to_text(graph, notes)})
    return {**notes, "nodes": len(program.graph.nodes)}


class ProgramRunner:
    """A traced program in torch on the CPU.

    Args:
        path: the file.

    Raises:
        ValueError: the file holds more than operators and weights, see `refuse_code`.
    """

    def __init__(self, path: Path) -> None:
        refuse_code(path)
        # Sizes are checked against the description; torch's own checks are code in the file.
        self.module = torch.export.load(path).module(check_guards=False)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `Runner`."""
        with torch.inference_mode():
            return self.module(*inputs)


FORMAT = Format(
    name="torch.export program",
    runtime=f"torch {torch.__version__}",
    packages=("torch",),
    extra="export",
    dtypes=("float32", "float16"),
    write=write,
    open=ProgramRunner,
    description=document_in,
    check=check,
)
