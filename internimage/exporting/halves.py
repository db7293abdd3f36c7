"""A graph in float16 with inputs and outputs in float32; norms and the positions of samples stay float32 inside."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from internimage.flow import ExportGraph
from internimage.types import Images


class HalfGraph(ExportGraph):
    """A copy of a graph in float16.

    Args:
        graph: the graph, which stays as it is.
    """

    def __init__(self, graph: ExportGraph) -> None:
        super().__init__(graph.config, graph.description)
        self.narrow = copy.deepcopy(graph).half()  # a traced module has a `graph` of its own

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs of the description to its outputs."""
        narrow = (value.half() if value.is_floating_point() else value for value in inputs)
        return tuple(value.float() if value.is_floating_point() else value for value in self.narrow(*narrow))

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """See `ExportGraph`; `forward` takes its inputs as one tuple."""
        return (super().dynamic_shapes(),)

    def raw(self, outputs: Sequence[Tensor]) -> Any:
        """See `ExportGraph`."""
        return self.narrow.raw(outputs)

    def results(self, outputs: Sequence[Tensor], images: Images) -> list[Any]:
        """See `ExportGraph`."""
        return self.narrow.results(outputs, images)
