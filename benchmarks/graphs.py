"""Functions on a GPU without the time that the host takes: captured once, replayed often."""

from __future__ import annotations

from collections.abc import Callable

import torch


def replayed(function: Callable[[], object], calls: int = 1) -> Callable[[], object]:
    """Return a function that replays a CUDA graph of `calls` calls of `function`."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            function()
    return graph.replay
