"""The memory of one step of a recipe, counted without running it: the backbone has no values, only the head has.

Shape legend: N images of a batch, C channels, H W size of the batch in pixels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from internimage.backbones import InternImage
from internimage.backbones.blocks import Block
from internimage.backbones.composite import CompositeInternImage
from internimage.recipe import Recipe
from internimage.recipe.recipe import CONFIG
from internimage.training.planning.live_memory import StepMemory, step_memory
from internimage.training.setup import training_of
from internimage.types import Features

# Images that the head is run on have no more pixels; what it needs for larger ones grows with them.
MOST_PIXELS = 800 * 1344
Backbone = InternImage | CompositeInternImage
# What autocast computes in; float16 takes the same room. A CPU, which the head is run on, has all operators for this.
HALF = torch.bfloat16


@dataclass(frozen=True)
class Counts:
    """Sizes of a model.

    Args:
        parameters: numbers in all.
        trained: those that have gradients.
        buffers: bytes beside the parameters.
        largest_block: numbers in the largest block of the backbone.
        outside_blocks: numbers in all that is no block.
    """

    parameters: int
    trained: int
    buffers: int
    largest_block: int
    outside_blocks: int


@dataclass(frozen=True)
class Classes:
    """A data set of which only the classes are known, which is all that a model is built by."""

    class_names: tuple[str, ...]


def classes(count: int) -> Classes:
    """Return as many classes, with made-up names."""
    return Classes(tuple(f"class {i}" for i in range(count)))


def count(recipe: Recipe, num_classes: int) -> Counts:
    """Return the sizes of the model of a recipe, which is built without values."""
    with torch.device("meta"):
        model: nn.Module = training_of(recipe).build(recipe, classes(num_classes))
    sizes = [sum(p.numel() for p in module.parameters()) for module in model.modules() if isinstance(module, Block)]
    parameters = sum(p.numel() for p in model.parameters())
    return Counts(
        parameters,
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        sum(buffer.nbytes for buffer in model.buffers()),
        max(sizes),
        parameters - sum(sizes),
    )


@dataclass(frozen=True)
class HeadMemory:
    """What everything behind the backbone needs.

    Args:
        step: of the images that it was run on.
        images: their count, in images of the true size.
        image_shape: (C, H, W) of the images that the backbone reads, in their true size.
    """

    step: StepMemory
    images: float
    image_shape: tuple[int, ...]

    def peak(self, images: int) -> int:
        """Return the most bytes at once for a batch, without the gradients of weights."""
        return round(self.step.peak * images / self.images)


def head_memory(recipe: Recipe, num_classes: int, *, autocast: bool) -> HeadMemory:
    """Run the head of a recipe forward and backward on made-up maps and count.

    Args:
        recipe: what is trained.
        num_classes: of the model.
        autocast: whether it runs in half precision.
    """
    task, config = training_of(recipe), recipe.model.config.backbone
    shallow = replace(config, depths=(1, 1, 1, 1), level2_post_norm_block_ids=())  # its blocks are not run
    recipe = recipe.with_values({f"{CONFIG}.backbone": shallow})
    model = task.build(recipe, classes(num_classes)).train()
    images, cpu = _fewest_images(recipe), torch.device("cpu")
    backbone = _StandIn(model.backbone)

    def loss(scale: float) -> Tensor:
        batch = task.example_batch(recipe, model, images, scale=scale)
        with torch.autocast("cpu", dtype=HALF, enabled=autocast):
            return sum(task.loss(recipe, model, batch, cpu).values(), torch.zeros(()))

    with contextlib.suppress(_Seen):
        loss(1.0)
    shape, backbone.runs = backbone.image_shape, True
    scale = min(1.0, math.sqrt(MOST_PIXELS / math.prod(shape[1:])))
    memory = step_memory(model, lambda: loss(scale))
    measured = math.prod(backbone.image_shape[1:]) / math.prod(shape[1:])
    return HeadMemory(memory, images * measured, shape)


def _fewest_images(recipe: Recipe) -> int:
    """Return 1, or 2 where batch norms need them."""
    try:
        training_of(recipe).check_batch(recipe.with_values({"data.batch_size": 1}))
    except ValueError:
        return 2
    return 1


class _Seen(Exception):
    """The size of the images is known, and the head need not run."""


class _StandIn:
    """Takes the place of the forward pass of a backbone: made-up maps of the size of its own.

    Attributes:
        image_shape: (C, H, W) of the images that it got last.
        runs: whether it gives maps, or ends the run of the model.
    """

    image_shape: tuple[int, ...] = ()
    runs = False

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        backbone.forward = self.forward  # type: ignore[method-assign]  # of this one module
        if isinstance(backbone, CompositeInternImage):
            backbone.forward_both = self.forward_both  # type: ignore[method-assign]  # of this one module

    def forward_both(self, pixels: Tensor) -> tuple[Features, Features]:
        """Return maps of both backbones of a composite one."""
        return self.forward(pixels), self.forward(pixels)

    def forward(self, pixels: Tensor) -> Features:
        """Return maps.

        Raises:
            _Seen: `runs` is off.
        """
        images, _, height, width = pixels.shape
        self.image_shape = tuple(pixels.shape[1:])
        if not self.runs:
            raise _Seen
        maps = []
        for i, channels in zip(self._backbone.out_indices, self._backbone.channels, strict=True):
            stride = self._backbone.strides[i]
            made_up = torch.randn(images, -(-height // stride), -(-width // stride), channels)
            maps.append(made_up.requires_grad_().permute(0, 3, 1, 2))
        return Features(tuple(maps))


@dataclass(frozen=True)
class Precision:
    """How the backbone computes.

    Args:
        weights: dtype of the weights that it reads.
        autocast: whether it runs in half precision on them.
    """

    weights: torch.dtype
    autocast: bool


def backbone_memory(recipe: Recipe, shape: Sequence[int], precision: Precision, *, checkpointing: bool) -> StepMemory:
    """Count what the backbone needs in a step, without values.

    Args:
        recipe: what is trained.
        shape: (N, C, H, W) of the batch.
        precision: how it computes.
        checkpointing: whether blocks are computed anew in the backward pass.
    """
    with torch.device("meta"):
        model = training_of(recipe).build(recipe, classes(2)).backbone.train().to(precision.weights)
    model.set_activation_checkpointing(checkpointing)
    with _without_values(model, precision) as device:

        def loss() -> Tensor:
            pixels = torch.empty(*shape, device=device, dtype=precision.weights)
            with torch.autocast(device, dtype=HALF) if precision.autocast else contextlib.nullcontext():
                given = model.forward_both(pixels) if isinstance(model, CompositeInternImage) else (model(pixels),)
            return sum((one.sum() for features in given for one in features.maps), torch.zeros((), device=device))

        return step_memory(model, loss)


@contextlib.contextmanager
def _without_values(model: nn.Module, precision: Precision) -> Iterator[str]:
    """Give the device that tensors without values are made on: meta, which has no autocast, or a pretended CPU."""
    if not precision.autocast:
        yield "meta"
        return
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        yield "cpu"


@dataclass(frozen=True)
class Activations:
    """What a batch needs beside the weights, at the most.

    Args:
        alone: bytes without the gradients of weights.
        with_gradients: bytes with them, of which the last ones come when most activations have gone.
    """

    alone: int
    with_gradients: int


def activations(recipe: Recipe, head: HeadMemory, precision: Precision, *, checkpointing: bool) -> Activations:
    """Count what a batch needs.

    Args:
        recipe: what is trained; its batch size counts.
        head: what the head needs.
        precision: how the backbone computes.
        checkpointing: whether its blocks are computed anew in the backward pass.
    """
    images = recipe.data.batch_size
    backbone = backbone_memory(recipe, (images, *head.image_shape), precision, checkpointing=checkpointing)
    in_head, gradients = backbone.kept + head.peak(images), head.step.gradients
    added = head.step.peak_with_gradients - head.step.peak
    return Activations(max(in_head, backbone.peak), max(in_head + added, gradients + backbone.peak_with_gradients))
