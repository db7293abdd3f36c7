"""Inputs of a graph that are made of real images: what a file is verified and calibrated with.

Shape legend: N images, C channels, H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.checkpoints.catalog import BUNDLED
from internimage.data.images.read import ImageInput, read_rgb
from internimage.flow import ExportGraph, GraphTensor
from internimage.flow.graph import BATCH, HEIGHT, IMAGE_HEIGHT, IMAGE_WIDTH, WIDTH, Dimension

# Sizes of the calls with which a file is verified: batch, height, width.
CALLS = ((1, 224, 224), (3, 128, 192), (2, 256, 160))
IMAGE_INPUTS = ("pixels", "images")  # see `flow.graph.image_input`


def bundled_images() -> list[ImageInput]:
    """Return the images that come with this package."""
    return [*sorted((BUNDLED / "pictures").glob("*.jpg")), *sorted((BUNDLED / "pictures").glob("*.png"))]


def calls(graph: ExportGraph) -> list[dict[str, int]]:
    """Return sizes of the free dimensions for some calls, all different; one empty call where nothing is free."""
    free = {dimension.name: dimension for dimension in graph.description.dimensions}
    found: list[dict[str, int]] = []
    for batch, height, width in CALLS:
        wanted = {BATCH: batch, HEIGHT: height, WIDTH: width, IMAGE_HEIGHT: height - 21, IMAGE_WIDTH: width + 13}
        sizes = {name: _fitting(wanted.get(name, dimension.least), dimension) for name, dimension in free.items()}
        if sizes not in found:
            found.append(sizes)
    return found


def _fitting(side: int, dimension: Dimension) -> int:
    """Return the allowed size that is nearest below, or the smallest one."""
    within = min(max(side, dimension.least), dimension.most)
    return max(within // dimension.step, -(-dimension.least // dimension.step)) * dimension.step


def inputs(graph: ExportGraph, images: Sequence[ImageInput], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Return the inputs of one call, with as many of the images, from the first on, as its batch holds."""
    examples = graph.example_inputs(dict(sizes))
    return tuple(
        _image_values(graph, tensor, example.shape, images) if tensor.name in IMAGE_INPUTS else example
        for tensor, example in zip(graph.description.inputs, examples, strict=True)
    )


def batches_of(graph: ExportGraph, images: Sequence[ImageInput]) -> Iterator[tuple[Tensor, ...]]:
    """Yield the inputs of calls that hold every image once, all of the first size of `calls`."""
    sizes = {**calls(graph)[0]}
    batch = graph.description.inputs[0].shape[0]
    number = batch if isinstance(batch, int) else 1
    if not isinstance(batch, int):
        sizes[batch] = 1
    for start in range(0, len(images), number):
        part = list(images[start : start + number])
        yield inputs(graph, part, sizes)


def _image_values(
    graph: ExportGraph, tensor: GraphTensor, shape: Sequence[int], images: Sequence[ImageInput]
) -> Tensor:
    """Return real images in the form of an input: normalized pixels, or uint8."""
    by_channels = tensor.dtype != "uint8" or graph.description.options.layout == "nchw"
    channels, height, width = shape[1:] if by_channels else (shape[3], shape[1], shape[2])
    batch = torch.cat([_resized(images[i % len(images)], channels, (height, width)) for i in range(shape[0])])
    if tensor.dtype == "uint8":
        batch = batch.round().clamp(0, 255).to(torch.uint8)
        return batch if by_channels else batch.permute(0, 2, 3, 1).contiguous()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (graph.description.mean, graph.description.std))
    return (batch - mean) / std


def _resized(image: ImageInput, channels: int, size_hw: tuple[int, int]) -> Tensor:
    """Return (1, C, H, W) values 0..255 of an image; other channels than RGB repeat these."""
    rgb = torch.from_numpy(np.array(read_rgb(image))).permute(2, 0, 1)[None].float()
    pixels = rgb[:, torch.arange(channels) % 3]
    return F.interpolate(pixels, size=size_hw, mode="bilinear", antialias=True)
