"""Overviews: many images on one sheet, and confusion matrices.

Sizes are (width, height) here, as Pillow has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from PIL import ImageDraw
from PIL.Image import Image, Resampling, Transpose
from torch import Tensor

from internimage.data.images.read import ImageInput, read_shown
from internimage.moved import renamed_keywords
from internimage.types import Classification
from internimage.visualize.draw import fit_inside
from internimage.visualize.text import ACCENT, PANEL, TEXT, TILE, WRONG, bar_row, fonts, rounded, write_text

MAX_LABELED_CLASSES = 30


@renamed_keywords(truths="targets")
def contact_sheet(
    results: Sequence[Classification],
    images: Sequence[ImageInput],
    *,
    targets: Sequence[str] | None = None,
    columns: int | None = None,
    heading: str = "",
) -> Image:
    """Lay out many images with their most probable class on one sheet.

    Args:
        results: one classification for each image.
        images: the images.
        targets: the right class names; a wrong prediction is marked and shows the right one. None if unknown.
        columns: tiles side by side, at least 1; None takes a layout of full rows where there is one.
        heading: a line above the tiles.

    Returns:
        RGB image.

    Raises:
        TypeError: a result cannot be drawn.
        ValueError: the numbers of results, images and targets differ, there are none, or an image cannot be read.
    """
    if not (results and len(results) == len(images) == (len(images) if targets is None else len(targets))):
        raise ValueError(
            "a contact sheet needs as many results as images (and targets), at least one; given "
            f"{len(results)}, {len(images)}{'' if targets is None else f', {len(targets)}'}"
        )
    if columns is None:
        columns = _fewest_empty_places(len(results))
    elif columns < 1:
        raise ValueError(f"columns must be at least 1, given {columns}")
    width, height, gap = 208, 246 if targets is None else 266, 14
    top = 64 if heading else 0
    num_rows = math.ceil(len(results) / columns)
    size = (gap + columns * (width + gap), top + gap + num_rows * (height + gap))
    canvas = PIL.Image.new("RGB", size, PANEL)
    if heading:
        write_text(canvas, (gap + 2, 26), heading, 22, TEXT, max_width=size[0] - 2 * gap)
    for i, (result, image) in enumerate(zip(results, images, strict=True)):
        row, column = divmod(i, columns)
        tile = _tile(result, image, None if targets is None else targets[i], (width, height))
        canvas.paste(tile, (gap + column * (width + gap), top + gap + row * (height + gap)))
    return canvas


def _fewest_empty_places(number: int) -> int:
    """Return a number of columns, from a square to twice as wide as high, that fills the last row best."""
    choices = range(math.isqrt(number - 1) + 1, math.isqrt(2 * number) + 2)
    return min(choices, key=lambda columns: (-number % columns, -columns))


def _tile(result: Classification, image: ImageInput, target: str | None, size: tuple[int, int]) -> Image:
    """One image of a contact sheet with its prediction."""
    if not isinstance(result, Classification):
        raise TypeError(f"a contact sheet takes Classification results, given {type(result).__name__}")
    width, height = size
    tile = PIL.Image.new("RGB", size, PANEL)
    rounded(tile, (0, 0, width, height), 10, TILE)
    inner = width - 12
    drawn = fit_inside(read_shown(image), (inner, inner))
    tile.paste(drawn, ((width - drawn.width) // 2, 6 + (inner - drawn.height) // 2))
    is_wrong = target is not None and target != result.name
    bar_row(tile, (12, width, width - 12), result.name, result.score, color=WRONG if is_wrong else ACCENT, unit=0.95)
    if is_wrong:
        write_text(tile, (12, width + 32), f"target: {target}", 14, WRONG, max_width=width - 24)
    return tile


def draw_confusion(confusion: Tensor, class_names: Sequence[str]) -> Image:
    """Draw a confusion matrix: rows are the ground truth, columns the predictions, brightness the fraction of a row.

    Args:
        confusion: (K, K) counts, or (K, K + 1) with a last column for predictions that are none of the K classes.
        class_names: K names.

    Returns:
        RGB image; up to 30 classes are labeled, and their fractions in percent written into the cells.

    Raises:
        ValueError: the matrix is not (K, K) or (K, K + 1).
    """
    if tuple(confusion.shape) == (len(class_names), len(class_names) + 1):
        confusion, class_names = torch.cat([confusion, torch.zeros_like(confusion[:1])]), (*class_names, "others")
    number = len(class_names)
    if tuple(confusion.shape) != (number, number) or number == 0:
        raise ValueError(f"the matrix must be ({number}, {number}), one row per class, given {tuple(confusion.shape)}")
    fractions = (confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    is_labeled = number <= MAX_LABELED_CLASSES
    cell = 56 if is_labeled else max(1, 1500 // number)
    left, top = (180, 196) if is_labeled else (24, 72)
    canvas = PIL.Image.new("RGB", (max(640, left + number * cell + 24), top + number * cell + 24), PANEL)
    heading = "Confusion: rows are the ground truth, columns the predictions"
    write_text(canvas, (24, 22), heading, 20, TEXT, max_width=canvas.width - 48)
    canvas.paste(_colored(fractions).resize((number * cell, number * cell), Resampling.NEAREST), (left, top))
    if is_labeled:
        _label(canvas, fractions, class_names, cell, (left, top))
    return canvas


def _colored(fractions: np.ndarray) -> Image:
    """Paint each fraction of a (K, K) matrix, 0..1, as one pixel, right predictions in another hue than wrong ones."""
    strength = np.sqrt(fractions)[..., None]  # (K, K, 1); the root shows rare confusions, too
    is_right = np.eye(len(fractions), dtype=bool)[..., None]
    color = np.where(is_right, np.array(ACCENT), np.array(WRONG))
    return PIL.Image.fromarray((np.array(TILE) * (1 - strength) + color * 0.85 * strength).astype(np.uint8))


def _label(canvas: Image, fractions: np.ndarray, names: Sequence[str], cell: int, corner: tuple[int, int]) -> None:
    """Write class names beside and above the cells, and percentages into them."""
    left, top = corner
    pen = ImageDraw.Draw(canvas)
    end = len(names) * cell
    for i, name in enumerate(names):
        pen.line((left + i * cell, top, left + i * cell, top + end), fill=PANEL, width=2)
        pen.line((left, top + i * cell, left + end, top + i * cell), fill=PANEL, width=2)
        write_text(canvas, (24, top + i * cell + 17), name, 16, TEXT, max_width=left - 36)
        upright = PIL.Image.new("RGB", (top - 76, 24), PANEL)
        write_text(upright, (0, 0), name, 16, TEXT, max_width=upright.width)
        canvas.paste(upright.transpose(Transpose.ROTATE_90), (left + i * cell + 16, 64))
        for j, fraction in enumerate(fractions[i]):
            if fraction >= 0.0005:
                written = f"{100 * fraction:.1f}"
                x = left + j * cell + (cell - fonts(14)[0].getlength(written)) / 2
                write_text(canvas, (round(x), top + i * cell + 18), written, 14, TEXT, max_width=cell)
