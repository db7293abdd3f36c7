"""From a graph to a program of torch.export, in operators that other runtimes know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.export import ExportedProgram

from internimage.flow import ExportGraph
from internimage.layers.backend import backend_for_a_while
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.ops.forms import DEFORM_CONV, GRID_SAMPLE

Operators = Literal["grid_sample", "deform_conv", "internimage"]
FORMS: dict[Operators, dict[Any, Callable[..., Any]]] = {
    "grid_sample": GRID_SAMPLE,
    "deform_conv": DEFORM_CONV,
    "internimage": {},
}


def trace(graph: ExportGraph, *, operators: Operators = "grid_sample") -> ExportedProgram:
    """Trace a graph, with the free sizes of its description.

    Args:
        graph: of `build_graph`.
        operators: what our operators become. "grid_sample": ordinary torch operators around `grid_sample`;
            "deform_conv": `torchvision::deform_conv2d` for `dcnv3` and `dcnv4`, the other form for `ms_deform_attn`;
            "internimage": one node each, which runs where this package is imported.

    Returns:
        The program; its inputs and outputs stand in the order of the description.

    Raises:
        ValueError: no such form.
    """
    if operators not in FORMS:
        raise ValueError(f"operators must be one of {', '.join(FORMS)}, given {operators!r}")
    with evaluation_mode(graph), torch.no_grad(), backend_for_a_while(graph, "auto"):
        shapes = graph.dynamic_shapes()
        # Not strict: Python runs as it is, which is quicker than reading its bytecode and takes all of ours.
        program = torch.export.export(graph, graph.example_inputs(), dynamic_shapes=shapes, strict=False)
        return program.run_decompositions(FORMS[operators]) if FORMS[operators] else program
