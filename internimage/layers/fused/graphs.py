"""CUDA graphs of a fused network: its launches are recorded once for a size of input, then replayed as one.

A network of some four hundred short kernels takes the host longer to launch than a GPU to run; a graph needs no Python.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from internimage.layers.fused.twin import Twin
from internimage.ops.fused.rules import is_inference
from internimage.ops.registration import is_eager
from internimage.ops.runtime.triton.support import device_of

Maps = tuple[Tensor, ...]
WARM_UPS = 2  # calls before a capture: kernels are compiled and libraries choose their algorithms


class Graph(NamedTuple):
    """A recorded call.

    Args:
        replay: runs it again on what `pixels` holds.
        pixels: its input.
        maps: its outputs, which the next replay of any graph overwrites.
    """

    replay: Callable[[], None]
    pixels: Tensor
    maps: Maps


class Graphs:
    """Recorded calls of one network, the most recently used ones.

    Args:
        network: whose calls they are.
        most: how many are kept, at least 1; each has its own input and outputs, those of a stream share the rest.
    """

    on = "cuda"  # type of the device

    def __init__(self, network: nn.Module, most: int) -> None:
        layers = list(network.modules())
        self._hooks = [hooks for layer in layers for hooks in (layer._forward_hooks, layer._forward_pre_hooks)]
        twins = [layer for layer in layers if isinstance(layer, Twin)]
        self._packed = [(twin, twin.packed) for twin in twins if twin.packed is not None]  # recorded by address
        self._most, self._lock = most, threading.Lock()
        self._kept: OrderedDict[Hashable, Graph] = OrderedDict()
        self._pools: dict[torch.cuda.Stream, Any] = {}

    def serve(self, pixels: Tensor) -> bool:
        """Whether a graph may stand for a call now: plain inference on a GPU, weights as they were, nobody watching."""
        return (
            pixels.device.type == self.on
            and is_inference(self.on)
            and is_eager(pixels)
            and not any(self._hooks)
            and not torch.cuda.is_current_stream_capturing()
            and all(twin.packed is packed for twin, packed in self._packed)
        )

    def run(self, pixels: Tensor, forward: Callable[[Tensor], Maps]) -> Maps:
        """The outputs of `forward`, which is recorded at the first call with such pixels."""
        stream = torch.cuda.current_stream(pixels.device)
        key = pixels.shape, pixels.stride(), pixels.dtype, stream
        with self._lock, device_of(pixels):
            graph = self._kept.pop(key, None)
            if graph is None:
                graph = record(pixels, forward, self._pools.setdefault(stream, torch.cuda.graph_pool_handle()))
            self._kept[key] = graph
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
            graph.pixels.copy_(pixels)
            graph.replay()
            return tuple(each.clone() for each in graph.maps)


def record(pixels: Tensor, forward: Callable[[Tensor], Maps], pool: Any) -> Graph:
    """Record a call on a copy of the pixels, after a few that are not."""
    own, side = pixels.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            forward(own)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
        maps = forward(own)
    return Graph(graph.replay, own, maps)


class Replayed(nn.Module):
    """A network of one tensor that can replay its calls; what drops packed weights drops the graphs, too."""

    graphs: Graphs | None = None

    def keep_graphs(self, most: int) -> None:
        """Replay calls from now on, for `most` sizes of input; 0 does not.

        Raises:
            ValueError: `most` is negative, or the network is not on a GPU.
        """
        device = next(self.parameters()).device
        if most < 0:
            raise ValueError(f"graphs must be 0 or more, given {most}; 0 keeps none")
        if most and device.type != Graphs.on:
            raise ValueError(f'graphs={most} needs a model on a GPU, given {device}; call model.to("cuda") first')
        self.graphs = Graphs(self, most) if most else None

    def replayed(self, pixels: Tensor, forward: Callable[[Tensor], Maps]) -> Maps:
        """The outputs of `forward`, from a graph where one may serve."""
        graphs = self.graphs
        return forward(pixels) if graphs is None or not graphs.serve(pixels) else graphs.run(pixels, forward)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training drops the graphs."""
        if mode:
            self.graphs = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.graphs = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "graphs"}


def keep_graphs(model: nn.Module, most: int) -> None:
    """Let the networks of a model that can replay their calls do so, each of them for `most` sizes of input."""
    inner = {part for module in model.modules() if isinstance(module, Replayed) for part in list(module.modules())[1:]}
    for module in model.modules():
        if isinstance(module, Replayed) and module not in inner:
            module.keep_graphs(most)
