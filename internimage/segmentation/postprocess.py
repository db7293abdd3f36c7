"""From scores at stride 4 to label maps of the original size, strip by strip.

The scores of all classes at full size would take gigabytes for a large image; only a few rows of them exist at a
time. The numbers are those of two resizes in a row, to the size of the input and to the original size.

Shape legend: K classes, H W size of the network's input, Ho Wo original size, h w size of a score map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.types import Images, Palette, Segmentation

# Scores in memory at a time: on a CPU as many as its caches hold, elsewhere enough to be worth a launch.
STRIP_BYTES = {"cpu": 8 * 2**20, "cuda": 128 * 2**20}
MIN_STRIP_ROWS = 8
PART_PIXELS = 32 * 2**10


class ScoredWindow(NamedTuple):
    """A part of the network's input and its (K, h, w) scores; `top`, `left`, `height` and `width` are in pixels."""

    top: int
    left: int
    height: int
    width: int
    scores: Tensor


class ScoreMap:
    """The scores of one image, put together from windows while they are read; can be read once.

    Args:
        windows: windows that cover the input, row by row; they may be computed while they are asked for.
        input_hw: (H, W) size of the network's input in pixels.
        original_hw: (Ho, Wo) size of the image in pixels.
    """

    def __init__(
        self, windows: Iterable[ScoredWindow], input_hw: tuple[int, int], original_hw: tuple[int, int]
    ) -> None:
        self.windows = iter(windows)
        self.input_hw = input_hw
        self.original_hw = original_hw
        self._active: list[ScoredWindow] = []

    def strip_rows(self, size_hw: tuple[int, int] | None = None) -> int:
        """Return how many rows of the scores fit the memory of a strip; `size_hw` as in `strips`."""
        height, width = size_hw or self.original_hw
        self._pull(0)
        classes, device = self._active[0].scores.shape[0], self._active[0].scores.device
        # Rows of the input that one row of the result looks at.
        enlarged = max(1.0, self.input_hw[0] / height)
        budget = STRIP_BYTES.get(device.type, STRIP_BYTES["cpu"])
        return max(MIN_STRIP_ROWS, int(budget / (4 * classes * max(width, self.input_hw[1]) * enlarged)))

    def strips(self, size_hw: tuple[int, int] | None = None, *, rows: int | None = None) -> Iterator[Tensor]:
        """Yield the (K, rows, width) scores from top to bottom, at `size_hw` or (None) the original size.

        Raises:
            ValueError: a score is not finite, which means broken weights or a broken input.
        """
        height, width = size_hw or self.original_hw
        rows = rows or self.strip_rows(size_hw)
        for start in range(0, height, rows):
            yield self._strip(start, min(start + rows, height), (height, width))

    def _strip(self, start: int, stop: int, size_hw: tuple[int, int]) -> Tensor:
        """Return rows `start` to `stop` of the (K, height, width) scores."""
        if size_hw == self.input_hw:
            return self._input_rows(start, stop)
        device = self._active[0].scores.device
        low, high, fraction = _taps(start, stop, size_hw[0], self.input_hw[0], device)
        first = int(low[0])
        band = self._input_rows(first, int(high[-1]) + 1)
        return _resize_columns(_lerp_rows(band, low - first, high - first, fraction), size_hw[1])

    def _input_rows(self, start: int, stop: int) -> Tensor:
        """Return rows of the (K, H, W) scores at the size of the input, averaged where windows overlap."""
        self._pull(stop)
        self._active = [window for window in self._active if window.top + window.height > start]
        [first, *others] = self._active
        if not others or (first.width == self.input_hw[1] and others[0].top >= stop):
            return _window_rows(first, start, stop)
        total = first.scores.new_zeros(first.scores.shape[0], stop - start, self.input_hw[1])
        count = total.new_zeros(total.shape[1:])
        for window in self._active:
            top, bottom = max(start, window.top), min(stop, window.top + window.height)
            if top < bottom:
                rows, columns = slice(top - start, bottom - start), slice(window.left, window.left + window.width)
                total[:, rows, columns] += _window_rows(window, top, bottom)
                count[rows, columns] += 1
        return total.div_(count)

    def _pull(self, stop: int) -> None:
        """Read windows until all that begin above row `stop` are there."""
        while not self._active or self._active[-1].top < stop:
            window = next(self.windows, None)
            if window is None:
                return
            if not math.isfinite(window.scores.sum(dtype=torch.float32).item()):
                raise ValueError(
                    "the model answered with NaN or infinite scores; check the weights (NaN parameters?) and, in half "
                    "precision, try float32"
                )
            # Rows are picked many times, which is slow from channels-last memory.
            self._active.append(window._replace(scores=window.scores.float().contiguous()))


def segment(
    outputs: Sequence[ScoreMap],
    images: Images,
    *,
    class_names: tuple[str, ...] | None,
    palette: Palette | None,
    probabilities: bool = False,
) -> list[Segmentation]:
    """Turn score maps into one result for each image; with `probabilities` also the softmax at original size.

    Raises:
        ValueError: a score is not finite.
    """
    results = []
    for scores, original_hw in zip(outputs, images.original_hw, strict=True):
        labels, softmaxed, strip = [], [], torch.empty(0)
        for strip in scores.strips():
            labels.append(best_class(strip).cpu())
            if probabilities:
                softmaxed.append(strip.softmax(dim=0).cpu())
        label_map = torch.cat(labels)
        assert tuple(label_map.shape) == tuple(original_hw)
        volume = torch.cat(softmaxed, dim=1) if probabilities else None
        results.append(Segmentation(label_map, strip.shape[0], class_names, palette, volume))
    return results


def label_dtype(num_classes: int) -> torch.dtype:
    """Return the type of a label map."""
    return torch.uint8 if num_classes <= 256 else torch.int16


def best_class(scores: Tensor) -> Tensor:
    """Return the index of the largest of (K, rows, width) scores as (rows, width) uint8, int16 beyond 256 classes."""
    dtype = label_dtype(scores.shape[0])
    if scores.device.type != "cpu":
        return scores.argmax(dim=0).to(dtype)
    # Class by class over parts that stay in the cache and are too small for torch to wake its threads 300 times;
    # torch's argmax over the first axis takes several times as long.
    label = torch.zeros(scores.shape[1:], dtype=dtype)
    rows = max(1, PART_PIXELS // scores.shape[2])
    for part, out in zip(scores.split(rows, dim=1), label.split(rows), strict=True):
        best = part[0].clone()
        for k in range(1, scores.shape[0]):
            out.masked_fill_(part[k] > best, k)
            torch.maximum(best, part[k], out=best)
    return label


def _window_rows(window: ScoredWindow, start: int, stop: int) -> Tensor:
    """Return rows of the input's size from the scores of a window; `start` and `stop` count from the input's top."""
    scores = window.scores
    if scores.shape[1] != window.height:
        place = (start - window.top, stop - window.top)
        scores = _lerp_rows(scores, *_taps(*place, window.height, scores.shape[1], scores.device))
    else:
        scores = scores[:, start - window.top : stop - window.top]
    return _resize_columns(scores, window.width)


def _taps(start: int, stop: int, new: int, old: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for new rows `start` to `stop`, both old rows and the fraction of the second one."""
    position = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (old / new) - 0.5
    position = position.clamp(min=0)
    low = position.long().clamp(max=old - 1)
    fraction = (position - low).float()
    return low.to(device), (low + 1).clamp(max=old - 1).to(device), fraction.to(device)


def _lerp_rows(scores: Tensor, low: Tensor, high: Tensor, fraction: Tensor) -> Tensor:
    """Mix pairs of rows of (K, h, w)."""
    return torch.lerp(scores.index_select(1, low), scores.index_select(1, high), fraction[:, None])


def _resize_columns(scores: Tensor, width: int) -> Tensor:
    """Resize (K, rows, w) to (K, rows, width)."""
    if scores.shape[2] == width:
        return scores
    return F.interpolate(scores[None], size=(scores.shape[1], width), mode="bilinear", align_corners=False)[0]
