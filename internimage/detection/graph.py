"""A detector as the graph that leaves PyTorch: every image has the same number of rows, its objects first.

Shape legend: N images, D rows, C channels, H W size of the input in pixels, S side of a mask's probability map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from internimage.detection.model import Detector
from internimage.detection.postprocess import RawDetections, Rows, to_detections
from internimage.flow import ExportGraph, GraphDescription, GraphOptions, GraphTensor
from internimage.flow.graph import BATCH, Dimension, free_dimensions, image_input, planes, standardized
from internimage.ops.boxes import clip_boxes, pairwise_overlaps
from internimage.ops.masks import map_coordinate
from internimage.ops.resampling import interpolated, resample, scalar, triangle
from internimage.types import Detections, Images

SAME_BOX = 0.9  # overlap (intersection over union) of boxes that stand for one object


class DetectorGraph(ExportGraph):
    """A detector: boxes, scores, labels, how many of the rows are objects, and masks.

    Args:
        model: the detector.
        options: what belongs to the graph.
        architecture: what the description calls the detector.

    Raises:
        ValueError: `mask_hw` is asked of a detector without masks.
    """

    def __init__(self, model: Detector, options: GraphOptions, *, architecture: str) -> None:
        if options.mask_hw is not None and model.mask_side is None:
            raise ValueError("this detector draws no masks; leave mask_hw out")
        rows = model.config.max_per_image
        own = model.config.preprocess
        batch = options.batch or (BATCH if model.has_free_batch else 1)
        image = image_input(own.channels, options, batch=batch)
        inputs = (image,)
        if not options.preprocess:
            inputs += (GraphTensor("valid_hw", "int64", (batch, 2), "height and width of each image before padding"),)
        description = GraphDescription(
            task=model.task,
            architecture=architecture,
            inputs=inputs,
            outputs=_outputs(model, options, batch, rows),
            dimensions=_free(model, inputs, options),
            class_names=model.config.class_names,
            mean=own.mean,
            std=own.std,
            options=options,
        )
        super().__init__(model.config, description)
        self.model = model
        self.rows = rows

    def forward(self, images: Tensor, valid_hw: Tensor | None = None) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # these inputs
        """Map the inputs to boxes (N, D, 4), scores and labels (N, D), numbers of objects (N,) and masks."""
        options, original = self.description.options, None
        if options.preprocess:
            images, valid_hw, original = self._prepare(images)
        assert valid_hw is not None
        found = self.model.in_rows(self.model(images, valid_hw), images.shape[0], self.rows)
        if not options.postprocess:
            return found.tensors()
        return self._finish(found, valid_hw, valid_hw[:1] if original is None else original).tensors()

    def _prepare(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Resize into the upper left corner of the input, as `detection.preprocess` does, and normalize.

        Returns:
            Pixels (N, C, H, W), sizes before padding (N, 2), size of the images (1, 2).
        """
        levels, own = planes(images, self.description.options), self.model.config.preprocess
        number, height, width = levels.shape[0], levels.shape[2], levels.shape[3]
        original = torch.stack([scalar(height, levels), scalar(width, levels)])  # (2,)
        canvas = self.description.options.size_hw
        if canvas is None:
            valid, pixels = original, standardized(levels, self.description)
        else:
            sides = original.float()
            fits = [limit / side for limit, side in zip(canvas, sides.unbind(), strict=True)]
            wanted = [own.shorter_side / sides.amin(), own.longer_side / sides.amax()]
            factor = torch.stack([*fits, *wanted]).amin()
            valid = (sides * factor + 0.5).floor().clamp(min=1)
            steps = sides / valid
            rows, columns = (interpolated(canvas[i], steps[i], (height, width)[i]) for i in (0, 1))
            pixels = standardized(resample(levels, rows, columns, rounds_between=False), self.description)
            inside = [torch.arange(canvas[i], device=levels.device) < valid[i] for i in (0, 1)]
            pixels = torch.where(inside[0][:, None] & inside[1], pixels, 0.0)
        return pixels, valid.long()[None].expand(number, 2), original[None]

    def _finish(self, found: Rows, valid_hw: Tensor, original: Tensor) -> Rows:
        """Lead boxes back to the original images, and draw the masks on the canvas where there is one."""
        scale = (valid_hw.float() / original.float()).flip(1).repeat(1, 2)[:, None]  # (N, 1, 4) width, height, ...
        boxes = clip_boxes(found.boxes / scale, original[:, None])
        canvas, masks = self.description.options.mask_hw, found.mask_probabilities
        if canvas is None or masks is None:
            return found._replace(boxes=boxes)
        side = masks.shape[-1]
        cells = torch.arange(side, dtype=torch.float32, device=boxes.device)
        weights: list[Tensor] = []
        for axis, length in ((1, canvas[0]), (0, canvas[1])):
            step = original[:, 1 - axis].float() / length  # pixels of the image for one of the canvas
            place = (torch.arange(length, dtype=torch.float32, device=boxes.device) + 0.5) * step[:, None]
            low, high = boxes[..., axis, None], boxes[..., axis + 2, None]
            at = map_coordinate(place[:, None] - 0.5, low, high, side)  # (N, D, length)
            weights.append(triangle(at[..., None] - cells))
        drawn = weights[0] @ masks @ weights[1].transpose(-1, -2)  # (N, D, mask height, mask width)
        exists = torch.arange(self.rows, device=boxes.device) < found.counts[:, None]
        is_on = (drawn >= self.model.mask_threshold) & exists[..., None, None]
        return found._replace(boxes=boxes, mask_probabilities=is_on)

    def example_inputs(self, sizes: dict[str, int] | None = None) -> tuple[Tensor, ...]:
        """Return inputs of the described shapes; nothing is padded."""
        image, *others = super().example_inputs(sizes)
        return image, *(torch.tensor(image.shape[2:]).expand(image.shape[0], 2) for _ in others)

    def agreement(self, outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
        """Return the fraction of objects that both hold, of one class and almost one box; see `ExportGraph`."""
        ours, theirs = Rows(*outputs).objects(), Rows(*expected).objects()
        same = pairwise_overlaps(theirs.boxes, ours.boxes) >= SAME_BOX
        same &= (theirs.labels[:, None] == ours.labels) & (theirs.image[:, None] == ours.image)
        total = len(theirs.labels) + len(ours.labels)
        return float(same.any(0).sum() + same.any(1).sum()) / total if total else 1.0

    def raw(self, outputs: Sequence[Tensor]) -> RawDetections:
        """Return the objects of all images as the detector gives them."""
        if self.description.options.postprocess:
            raise ValueError("this graph gives finished results; export it without postprocessing for raw outputs")
        return Rows(*outputs).objects()

    def results(self, outputs: Sequence[Tensor], images: Images) -> list[Detections]:
        """Return the objects of each image, see `ExportGraph.results`."""
        options, rows = self.description.options, Rows(*outputs)
        if options.mask_hw is not None:
            raise ValueError("masks on a canvas are for other programs; export with mask_hw=None for results")
        if options.postprocess and options.preprocess:
            images = Images(images.pixels, torch.tensor(images.original_hw).reshape(-1, 2), images.original_hw)
        return to_detections(
            rows.objects(), images, self.model.config.class_names, mask_threshold=self.model.mask_threshold
        )


def _free(model: Detector, inputs: tuple[GraphTensor, ...], options: GraphOptions) -> tuple[Dimension, ...]:
    """Describe the free sizes; without a resize, images are padded and have two cells of the coarsest level."""
    if options.size_hw is not None:
        return free_dimensions(inputs)
    return free_dimensions(inputs, step=model.config.preprocess.divisor, least=model.coarsest_stride + 1)


def _outputs(model: Detector, options: GraphOptions, batch: int | str, rows: int) -> tuple[GraphTensor, ...]:
    pixels = "pixels of the image" if options.postprocess and options.preprocess else "pixels of the input"
    outputs = (
        GraphTensor("boxes", "float32", (batch, rows, 4), f"corners left, top, right, bottom in {pixels}"),
        GraphTensor("scores", "float32", (batch, rows), "0..1, best first; 0 behind the last object"),
        GraphTensor("labels", "int64", (batch, rows), "class indices; -1 behind the last object"),
        GraphTensor("counts", "int64", (batch,), "number of objects, which are the first rows"),
    )
    side = model.mask_side
    if side is None:
        return outputs
    if options.mask_hw is None:
        shape, dtype, meaning = (side, side), "float32", "probability inside of the box, from its corner to its corner"
    else:
        shape, dtype, meaning = options.mask_hw, "bool", "which pixels of the canvas belong to the object"
    return (*outputs, GraphTensor("masks", dtype, (batch, rows, *shape), meaning))
