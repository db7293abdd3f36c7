"""From a model of any task, or a bare backbone, to its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from internimage import tasks
from internimage.backbones import InternImage
from internimage.backbones.names import size_of
from internimage.data.images.normalize import IMAGENET_MEAN, IMAGENET_STD
from internimage.flow import ExportGraph, GraphDescription, GraphOptions, GraphTensor, Network
from internimage.flow.graph import BATCH, free_dimensions, image_input
from internimage.types import Features, Images

WHITE = 255.0


class BackboneGraph(ExportGraph):
    """A bare backbone: its maps, fine to coarse."""

    def __init__(self, backbone: InternImage, options: GraphOptions) -> None:
        if options.preprocess or options.postprocess:
            raise ValueError("a bare backbone has no preprocessing and no postprocessing; leave them out")
        config = backbone.config
        pixels = image_input(config.in_chans, options)
        strides = [backbone.strides[level] for level in backbone.out_indices]
        outputs = tuple(
            GraphTensor(
                f"stride{stride}",
                "float32",
                (options.batch or BATCH, channels, *(_divided(side, stride) for side in pixels.shape[2:])),
                f"map of level {level}, one cell for {stride} pixels",
            )
            for level, channels, stride in zip(backbone.out_indices, backbone.channels, strides, strict=True)
        )
        description = GraphDescription(
            task="backbone",
            architecture=size_of(config) or "internimage",
            inputs=(pixels,),
            outputs=outputs,
            dimensions=free_dimensions((pixels,)),
            class_names=None,
            mean=tuple(WHITE * value for value in IMAGENET_MEAN),
            std=tuple(WHITE * value for value in IMAGENET_STD),
            options=options,
        )
        super().__init__(config, description)
        self.model = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # one input
        """Map (N, C, H, W) pixels to the maps."""
        return self.model(pixels).maps

    def raw(self, outputs: Sequence[Tensor]) -> Features:
        """Return the maps as the backbone gives them."""
        return Features(tuple(outputs))

    def results(self, outputs: Sequence[Tensor], images: Images) -> list[Features]:
        """Return the maps of each image."""
        return [Features(tuple(level[i : i + 1] for level in outputs)) for i in range(len(outputs[0]))]


def _divided(side: int | str, stride: int) -> int | str:
    return -(-side // stride) if isinstance(side, int) else f"ceil({side}/{stride})"


def build_graph(model: Network, options: GraphOptions | None = None) -> ExportGraph:
    """Return the graph of a model; it shares the model's weights.

    Args:
        model: a model of any task, or a bare backbone.
        options: what belongs to the graph, None for the bare network with free sizes.

    Raises:
        ValueError: the model has no such graph; the message says what it has.

    Example:
        >>> from internimage.backbones import variant
        >>> graph = build_graph(InternImage(variant("internimage_pico")))
        >>> [(output.name, output.shape[1]) for output in graph.description.outputs]
        [('stride4', 24), ('stride8', 48), ('stride16', 96), ('stride32', 192)]
    """
    options = options or GraphOptions()
    if isinstance(model, InternImage):
        return BackboneGraph(model, options)
    task = tasks.of_model(model)
    if task.graph is None:
        raise ValueError(f"models of the task {task.name!r} have no graph to export")
    return cast(ExportGraph, task.graph(model, options))
