"""Instance masks: from small probability maps inside boxes to run lengths of whole images, and targets for training.

Shape legend: R regions, S side of a probability map, H W image size, V columns of all regions together, G objects.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

from internimage.types import RunLengthMasks

# Columns worked on at once; each takes about 1.5 kB.
CHUNK_COLUMNS = 2**16


def paste_masks(
    probabilities: Tensor, boxes: Tensor, size_hw: tuple[int, int], *, threshold: float = 0.5
) -> RunLengthMasks:
    """Draw probability maps into their boxes and cut them at a threshold, without ever holding R images.

    Between two rows of a map the probability is linear along an image column, so that it crosses the threshold at most
    once: each of these pieces gives at most one run. The work grows with the widths of the boxes, not their areas.

    Args:
        probabilities: (R, S, S) float, 0..1.
        boxes: (R, 4) corners in pixels of the image.
        size_hw: height and width of the image.
        threshold: a pixel belongs to the mask from this probability on, 0..1; pixels outside of the box count as 0.

    Returns:
        R masks, on the CPU.

    Example:
        >>> masks = paste_masks(torch.ones(1, 28, 28), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), (2, 4))
        >>> masks.to_bool().int().tolist()
        [[[0, 1, 1, 0], [0, 1, 1, 0]]]
    """
    height, width = size_hw
    boxes = boxes.double()
    left = (boxes[:, 0].floor() - 1).clamp(0, width).long()
    right = (boxes[:, 2].ceil() + 1).clamp(0, width).long()
    number = (right - left).clamp(min=0)  # (R,) image columns that a box touches
    counts: list[Tensor] = []
    for start, end in _portions(number.tolist()):
        part = slice(start, end)
        runs = _column_runs(probabilities[part].double(), boxes[part], left[part], number[part], size_hw, threshold)
        counts += _joined(*runs, end - start, height * width)
    return RunLengthMasks(tuple(counts), size_hw)


def _portions(columns: list[int]) -> list[tuple[int, int]]:
    """Cut the regions into ranges of about `CHUNK_COLUMNS` columns each."""
    portions, start, total = [], 0, 0
    for i, number in enumerate(columns):
        total += number
        if total >= CHUNK_COLUMNS or i == len(columns) - 1:
            portions.append((start, i + 1))
            start, total = i + 1, 0
    return portions


def _column_runs(
    maps: Tensor, boxes: Tensor, left: Tensor, number: Tensor, size_hw: tuple[int, int], threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (region, first pixel, pixel behind the last) of every run; pixels are counted column by column."""
    height, _ = size_hw
    side = maps.shape[-1]
    region = torch.arange(len(boxes), device=boxes.device).repeat_interleave(number)  # (V,)
    first = torch.cat([number.new_zeros(1), number.cumsum(0)[:-1]])
    x = torch.arange(len(region), device=boxes.device) - first[region] + left[region]  # (V,) image columns
    box = boxes[region]
    u = map_coordinate(x.double(), box[:, 0], box[:, 2], side)
    lower = u.floor()
    index = (lower.long() + 1).clamp(0, side + 1)  # a frame of zeros around the map
    framed = torch.nn.functional.pad(maps, (1, 1, 1, 1))
    near, far = framed[region, :, index], framed[region, :, (index + 1).clamp(max=side + 1)]  # (V, S + 2)
    values = torch.lerp(near, far, (u - lower)[:, None])

    edges = _first_rows(box, side, height)  # (V, S + 2): first row at or below each map row
    begin, end = edges[:, :-1], edges[:, 1:]  # (V, S + 1) rows of each piece
    a, b = values[:, :-1], values[:, 1:]
    cross = (torch.arange(side + 1, device=maps.device) - 1) + (threshold - a) / (b - a)  # where the piece is crossed
    row = _image_coordinate(cross, box[:, 1:2], box[:, 3:4], side).nan_to_num(0, 2.0**31, -(2.0**31))
    rising, falling = (a < threshold) & (b >= threshold), (a >= threshold) & (b < threshold)
    begin = torch.where(rising, torch.maximum(begin, row.ceil().long()), begin)
    end = torch.where(falling, torch.minimum(end, row.floor().long() + 1), end)
    flat = (box[:, 3] <= box[:, 1])[:, None]  # a box without height: the probability is the same in all its rows
    is_on = torch.where(
        flat, torch.lerp(a, b, 0.5 if side % 2 == 0 else 0.0) >= threshold, (a >= threshold) | (b >= threshold)
    )
    is_on &= begin < end
    column, _ = is_on.nonzero(as_tuple=True)
    start = x[column] * height
    return region[column], start + begin[is_on], start + end[is_on]


def map_coordinate(pixel: Tensor, low: Tensor, high: Tensor, side: int) -> Tensor:
    """Place of a pixel's center in a map whose cell centers are 0 .. S - 1; the middle for boxes without extent."""
    extent = high - low
    place = (pixel + 0.5 - low) / extent * side - 0.5
    return torch.where(extent > 0, place, (side - 1) / 2).clamp(-1, side)


def _image_coordinate(place: Tensor, low: Tensor, high: Tensor, side: int) -> Tensor:
    """The pixel whose center lies at a place of the map; inverse of `map_coordinate`."""
    return (place + 0.5) / side * (high - low) + low - 0.5


def _first_rows(box: Tensor, side: int, height: int) -> Tensor:
    """First image row at or behind each row of the framed map, -1 .. S, inside of what the box touches."""
    top = (box[:, 1].floor() - 1).clamp(0, height)[:, None]
    bottom = (box[:, 3].ceil() + 1).clamp(0, height)[:, None]
    place = torch.arange(-1, side + 1, device=box.device, dtype=box.dtype)
    rows = _image_coordinate(place, box[:, 1:2], box[:, 3:4], side).ceil()
    is_flat = box[:, 3:4] <= box[:, 1:2]
    rows = torch.where(is_flat, torch.where(place <= (side - 1) / 2, top, bottom), rows)
    return torch.minimum(torch.maximum(rows, top), bottom).long()


def _joined(region: Tensor, start: Tensor, end: Tensor, number: int, pixels: int) -> list[Tensor]:
    """Join runs that touch and return the run lengths of each region."""
    region, start, end = region.cpu(), start.cpu(), end.cpu()
    touches = (region[1:] == region[:-1]) & (start[1:] == end[:-1])
    begins = torch.cat([touches.new_ones(min(1, len(region))), ~touches])
    ends = torch.cat([~touches, touches.new_ones(min(1, len(region)))])
    sizes = torch.bincount(region[begins], minlength=number).tolist()
    bounds = torch.stack([start[begins], end[ends]], dim=1)  # (runs of 1, 2)
    counts: list[Tensor] = []
    for own in bounds.split(sizes):
        cuts = torch.cat([own.new_zeros(1), own.flatten(), own.new_full((1,), pixels)])
        lengths = cuts.diff()
        counts.append(lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths)
    return counts


def crop_masks(masks: Tensor, boxes: Tensor, indices: Tensor, side: int) -> Tensor:
    """Cut true masks out along boxes, as targets of a mask head.

    Args:
        masks: (G, H, W) bool or uint8 masks of an image.
        boxes: (R, 4) corners in pixels; clipped to the image.
        indices: (R,) int64 number of the mask of each box.
        side: S of the result.

    Returns:
        (R, S, S) float32 of 0 and 1.
    """
    height, width = masks.shape[-2:]
    limit = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(boxes.clamp(min=0), limit)
    rois = torch.cat([indices[:, None].to(boxes.dtype), clipped], dim=1)
    sampled = roi_align(masks[:, None].to(boxes.dtype), rois, side, sampling_ratio=-1, aligned=True)
    return (sampled[:, 0] >= 0.5).float()
