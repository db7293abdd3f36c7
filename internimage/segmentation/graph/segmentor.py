"""A segmentor as the graph that leaves PyTorch. It looks at the whole image: windows are the caller's.

Shape legend: N images, C channels, H W size of the input in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.data.images.resize import resize_nearest
from internimage.flow import ExportGraph, GraphDescription, GraphOptions, GraphTensor
from internimage.flow.graph import BATCH, free_dimensions, image_input, planes, standardized
from internimage.ops.resampling import interpolated, resample, scalar
from internimage.segmentation.model import Segmentor
from internimage.segmentation.postprocess import ScoredWindow, ScoreMap, label_dtype
from internimage.types import Images, Segmentation

WHITE = 255.0
STRIDE = 4


class SegmentorGraph(ExportGraph):
    """A segmentor: scores at stride 4, or label maps of the size of the images.

    Args:
        model: the segmentor.
        options: what belongs to the graph. Its preprocessing stretches images to `size_hw`.
    """

    def __init__(self, model: Segmentor, options: GraphOptions) -> None:
        own, batch = model.config.preprocess, options.batch or BATCH
        image = image_input(own.channels, options)
        height, width = image.shape[1:3] if image.shape[-1] == own.channels else image.shape[2:]
        if options.postprocess:
            output = GraphTensor("label_map", "int64", (batch, height, width), "class index of each pixel")
        else:
            sides = (f"ceil({side}/{STRIDE})" if isinstance(side, str) else -(-side // STRIDE) for side in
                     options.size_hw or (height, width))  # fmt: skip
            meaning = "scores of each class, the largest wins; one cell for 4 pixels"
            output = GraphTensor("scores", "float32", (batch, model.config.num_classes, *sides), meaning)
        description = GraphDescription(
            task=model.task,
            architecture=model.config.kind,
            inputs=(image,),
            outputs=(output,),
            dimensions=free_dimensions((image,), step=own.multiple if options.size_hw is None else 1),
            class_names=model.config.class_names,
            mean=tuple(WHITE * value for value in own.mean),
            std=tuple(WHITE * value for value in own.std),
            options=options,
        )
        super().__init__(model.config, description)
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]  # one input
        """Map images to scores (N, K, H / 4, W / 4) or label maps (N, height, width)."""
        options, pixels = self.description.options, images
        if options.preprocess:
            levels = planes(images, options)
            pixels = standardized(self._resized(levels), self.description)
            original_hw = levels.shape[2:]
        else:
            original_hw = pixels.shape[2:]
        scores = self.model(pixels)
        if not options.postprocess:
            return (scores,)
        scores = F.interpolate(scores.float(), size=pixels.shape[2:], mode="bilinear", align_corners=False)
        if options.preprocess and options.size_hw is not None:
            scores = F.interpolate(scores, size=original_hw, mode="bilinear", align_corners=False)
        return (scores.argmax(dim=1),)

    def _resized(self, levels: Tensor) -> Tensor:
        size_hw = self.description.options.size_hw
        if size_hw is None:
            return levels
        rows, columns = (
            interpolated(new, scalar(old, levels).float() / new, old)
            for new, old in zip(size_hw, levels.shape[2:], strict=True)
        )
        return resample(levels, rows, columns, rounds_between=False)

    def raw(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the scores."""
        if self.description.options.postprocess:
            raise ValueError("this graph gives label maps; export it without postprocessing for scores")
        return outputs[0]

    def results(self, outputs: Sequence[Tensor], images: Images) -> list[Segmentation]:
        """Return the prediction of each image, see `ExportGraph.results`; label maps are enlarged pixel by pixel."""
        sizes, config = images.original_hw, self.model.config
        if not self.description.options.postprocess:
            [scores], (height, width) = outputs, self.description.options.size_hw or images.pixels.shape[2:]
            maps = [
                ScoreMap([ScoredWindow(0, 0, height, width, one)], (height, width), hw)
                for one, hw in zip(scores, sizes, strict=True)
            ]
            return self.model.postprocess(maps, images)
        results: list[Segmentation] = []
        for one, hw in zip(outputs[0].to(label_dtype(config.num_classes)), sizes, strict=True):
            label_map = torch.from_numpy(resize_nearest(one.numpy(), hw))
            results.append(Segmentation(label_map, config.num_classes, config.class_names, config.palette))
        return results
