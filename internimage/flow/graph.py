"""A model as the graph that leaves PyTorch: tensors in, tensors out, and a description that every format carries along.

`internimage.exporting.graphs` makes the graph of any model; each task's folder says in `graph.py` what its graph is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from internimage.backbones import BackboneConfig
from internimage.flow.config import TaskConfig
from internimage.ranges import Length, Range, Ranged
from internimage.types import Images

Side = Annotated[int, Range(1, 16_384)]
DTypeName = Literal["float32", "uint8", "int64", "bool"]
BATCH, HEIGHT, WIDTH = "batch", "height", "width"
IMAGE_HEIGHT, IMAGE_WIDTH = "image_height", "image_width"
MOST_IMAGES, MOST_PIXELS = 1024, 16_384
LEAST_PIXELS = 33  # two cells of the coarsest level: one alone would be a constant of the graph
# Sizes of a traced example differ from one another and from 0 and 1, which torch.export takes for constants.
EXAMPLE = {BATCH: 2, HEIGHT: 96, WIDTH: 128, IMAGE_HEIGHT: 75, IMAGE_WIDTH: 110}


@dataclass(frozen=True)
class GraphOptions(Ranged):
    """What belongs to a graph, and which of its sizes are free.

    Args:
        batch: images of a call, None for any number. The graph of an R-CNN works image by image: None means one.
        size_hw: (height, width) of the network's input in pixels, None for any. With `preprocess`, images are brought
            to it; None takes the size that a classifier was made for, and images of other tasks as they are.
        image_hw: (height, width) of the images in front of the preprocessing in pixels, None for any.
        preprocess: the graph reads RGB images of uint8 (of as many channels as the model reads) and resizes and
            normalizes them itself; otherwise it reads normalized pixels.
        layout: order of the axes of such images.
        postprocess: the graph gives what `predict` reports (probabilities; boxes of the original image and masks;
            label maps); otherwise raw outputs.
        mask_hw: (height, width) of a canvas, onto which the whole image is drawn with the masks of its objects, for
            detectors with masks and with `postprocess`; None leaves the probabilities inside of each box.
    """

    batch: Annotated[int, Range(1, MOST_IMAGES)] | None = None
    size_hw: tuple[Side, Side] | None = None
    image_hw: tuple[Side, Side] | None = None
    preprocess: bool = False
    layout: Literal["nhwc", "nchw"] = "nhwc"
    postprocess: bool = False
    mask_hw: tuple[Side, Side] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_hw is not None and not self.preprocess:
            raise ValueError("image_hw is the size of images in front of the preprocessing; ask for preprocess=True")
        if self.mask_hw is not None and not self.postprocess:
            raise ValueError("mask_hw is a canvas of the postprocessing; ask for postprocess=True")


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of a graph.

    Args:
        name: its name in every format.
        dtype: its type.
        shape: sizes of its axes; a text is the name of a `Dimension`, or how a size follows from them.
        meaning: what its values are, with their units.
    """

    name: str
    dtype: DTypeName
    shape: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True)
class Dimension:
    """A free size of the inputs: a multiple of `step` in `least`..`most`."""

    name: str
    least: int
    most: int
    step: int = 1


@dataclass(frozen=True)
class GraphDescription(Ranged):
    """What a user of an exported file must know; texts and numbers only (`settings.to_plain`, `settings.from_plain`).

    Args:
        task: name of the task, or "backbone".
        architecture: name of the kind of model, for example "mask_rcnn".
        inputs: the inputs in order.
        outputs: the outputs in order.
        dimensions: the free sizes that the shapes name.
        class_names: a name for each class, or None.
        mean: what normalized pixels are made with, one value a channel of RGB: (value - mean) / std, value 0..255.
        std: see `mean`.
        options: what was asked for.
    """

    task: str
    architecture: str
    inputs: Annotated[tuple[GraphTensor, ...], Length(1, 16)]
    outputs: Annotated[tuple[GraphTensor, ...], Length(1, 16)]
    dimensions: tuple[Dimension, ...]
    class_names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: GraphOptions = field(default_factory=GraphOptions)


class ExportGraph(nn.Module, ABC):
    """A model in evaluation mode with its way in and out as one module of tensors, which is traced.

    Args:
        config: the configuration of the model, which rebuilds it.
        description: inputs and outputs.
    """

    def __init__(self, config: TaskConfig | BackboneConfig, description: GraphDescription) -> None:
        super().__init__()
        self.config = config
        self.description = description

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs of the description to its outputs."""

    @abstractmethod
    def raw(self, outputs: Sequence[Tensor]) -> Any:
        """Return what the model's `forward` gives, from the outputs of a graph without postprocessing.

        The graph may have run anywhere: the weights of this one are not asked for, which may be on the meta device.

        Raises:
            ValueError: the graph has its postprocessing inside.
        """

    @abstractmethod
    def results(self, outputs: Sequence[Tensor], images: Images) -> list[Any]:
        """Return what `predict` gives, from the outputs of a graph with or without postprocessing.

        Args:
            outputs: outputs of a graph that ran anywhere, on the CPU.
            images: what `model.preprocess` gave; of a graph with preprocessing only the `original_hw` of its images.
        """

    def agreement(self, outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
        """Return the fraction of what outputs decide that is as expected, 0..1.

        A floating output decides on the best class along its axis 1, every other one on each of its values.
        """
        found = 1.0
        for ours, theirs in zip(outputs, expected, strict=True):
            if ours.shape != theirs.shape:
                return 0.0
            if theirs.is_floating_point():
                ours, theirs = ours.argmax(1), theirs.argmax(1)
            found = min(found, float((ours == theirs).double().mean()) if theirs.numel() else 1.0)
        return found

    def example_inputs(self, sizes: dict[str, int] | None = None) -> tuple[Tensor, ...]:
        """Return inputs of the described shapes with random values; `sizes` are those of free dimensions."""
        chosen = EXAMPLE | (sizes or {})
        return tuple(
            example(tensor.dtype, [side if isinstance(side, int) else chosen[side] for side in tensor.shape])
            for tensor in self.description.inputs
        )

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Return the free axes of each input as `torch.export.export` takes them."""
        free: dict[int | str, Any] = {}
        for dimension in self.description.dimensions:
            step = dimension.step
            least, most = -(-dimension.least // step), dimension.most // step
            if step == 1:
                free[dimension.name] = torch.export.Dim(dimension.name, min=least, max=most)
            else:
                free[dimension.name] = step * torch.export.Dim(f"{dimension.name}_steps", min=least, max=most)
        return tuple(
            {axis: free[side] for axis, side in enumerate(tensor.shape) if side in free}
            for tensor in self.description.inputs
        )


def example(dtype: DTypeName, shape: Sequence[int]) -> Tensor:
    """Return random values of an input's type."""
    if dtype == "float32":
        return torch.randn(tuple(shape))
    return torch.randint(0, 256 if dtype == "uint8" else 2, tuple(shape), dtype=getattr(torch, dtype))


def image_input(channels: int, options: GraphOptions, *, batch: int | str | None = None) -> GraphTensor:
    """Describe the first input of every graph: images, or pixels; `batch` is None for that of the options."""
    batch = batch or options.batch or BATCH
    if not options.preprocess:
        shape = (batch, channels, *(options.size_hw or (HEIGHT, WIDTH)))
        return GraphTensor("pixels", "float32", shape, "normalized pixels, (value - mean) / std of RGB 0..255")
    height, width = options.image_hw or (IMAGE_HEIGHT, IMAGE_WIDTH)
    axes = (height, width, channels) if options.layout == "nhwc" else (channels, height, width)
    return GraphTensor("images", "uint8", (batch, *axes), "RGB images, 0..255")


def free_dimensions(
    inputs: Sequence[GraphTensor], *, step: int = 1, least: int = LEAST_PIXELS
) -> tuple[Dimension, ...]:
    """Describe the free sizes of inputs; images and pixels have sides of `least` or more, multiples of `step`."""
    names = dict.fromkeys(side for tensor in inputs for side in tensor.shape if isinstance(side, str))
    return tuple(
        Dimension(name, 1, MOST_IMAGES)
        if name == BATCH
        else Dimension(name, -(-least // step) * step, MOST_PIXELS, step)
        for name in names
    )


def planes(images: Tensor, options: GraphOptions) -> Tensor:
    """Return the images of a graph with preprocessing as (N, C, H, W) float32 of 0..255."""
    return (images if options.layout == "nchw" else images.permute(0, 3, 1, 2)).float()


def standardized(images: Tensor, description: GraphDescription) -> Tensor:
    """Normalize (N, C, H, W) of 0..255."""
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (description.mean, description.std)
    )
    return (images - mean) / std
