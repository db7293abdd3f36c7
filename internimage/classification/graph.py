"""A classifier as the graph that leaves PyTorch.

Shape legend: N images, C channels, S side of the input in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from internimage.classification.head import SPATIAL_SIZE, TEMPORAL_SIZE
from internimage.classification.model import Classifier
from internimage.classification.postprocess import classify
from internimage.flow import ExportGraph, GraphDescription, GraphOptions, GraphTensor
from internimage.flow.graph import BATCH, free_dimensions, image_input, planes, standardized
from internimage.ops.resampling import antialiased, cubic, resample, scalar, triangle
from internimage.types import Classification, Images

KERNELS = {"bicubic": cubic, "bilinear": triangle}
WHITE = 255.0


class ClassifierGraph(ExportGraph):
    """A classifier: logits, or probabilities; date and place are a second input where the head reads them.

    Args:
        model: the classifier.
        options: what belongs to the graph.

    Raises:
        ValueError: the preprocessing makes squares, and `size_hw` is none.
    """

    def __init__(self, model: Classifier, options: GraphOptions) -> None:
        own = model.config.preprocess
        if options.preprocess:
            height, width = options.size_hw or (own.size, own.size)
            if height != width:
                raise ValueError(f"a classifier's preprocessing makes squares, given size_hw={options.size_hw}")
            options = replace(options, size_hw=(height, width))
        batch = options.batch or BATCH
        inputs = (image_input(own.channels, options),)
        if model.takes_metadata:
            meaning = "sine and cosine of the month's angle, 0, 0, place on the unit sphere; zeros where unknown"
            inputs += (GraphTensor("metadata", "float32", (batch, TEMPORAL_SIZE + SPATIAL_SIZE), meaning),)
        name, meaning = ("probabilities", "0..1") if options.postprocess else ("logits", "before the softmax")
        description = GraphDescription(
            task=model.task,
            architecture="classifier",
            inputs=inputs,
            outputs=(GraphTensor(name, "float32", (batch, model.config.num_classes), f"of each class, {meaning}"),),
            dimensions=free_dimensions(inputs, step=1 if options.preprocess else model.head.exported_step),
            class_names=model.config.class_names,
            mean=tuple(WHITE * value for value in own.mean),
            std=tuple(WHITE * value for value in own.std),
            options=options,
        )
        super().__init__(model.config, description)
        self.model = model

    def forward(self, images: Tensor, metadata: Tensor | None = None) -> tuple[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]  # these inputs
        """Map the inputs to (N, K)."""
        options = self.description.options
        pixels = self._prepare(images) if options.preprocess else images
        logits = self.model(pixels, None, metadata)
        return (logits.softmax(dim=-1),) if options.postprocess else (logits,)

    def _prepare(self, images: Tensor) -> Tensor:
        """Resize, crop and normalize as `classification.preprocess` does: (N, C, S, S)."""
        levels, own = planes(images, self.description.options), self.model.config.preprocess
        assert self.description.options.size_hw is not None
        size, kernel = self.description.options.size_hw[0], KERNELS[own.interpolation]
        sides = [scalar(side, levels) for side in levels.shape[2:]]
        shorter = torch.minimum(*sides)
        weights: list[Tensor] = []
        for side, length in zip(sides, levels.shape[2:], strict=True):
            resized = side * size // shorter if own.crop else torch.full_like(side, size)
            first = ((resized - size).float() / 2).round() if own.crop else torch.zeros_like(side)
            weights.append(antialiased(first, size, side.float() / resized, length, kernel))
        return standardized(resample(levels, *weights, rounds_between=True), self.description)

    def raw(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the logits."""
        if self.description.options.postprocess:
            raise ValueError("this graph gives probabilities; export it without postprocessing for logits")
        return outputs[0]

    def results(self, outputs: Sequence[Tensor], images: Images) -> list[Classification]:
        """Return the prediction of each image, see `ExportGraph.results`."""
        logits = outputs[0].log() if self.description.options.postprocess else outputs[0]
        return classify(logits, images, self.model.config.class_names)
