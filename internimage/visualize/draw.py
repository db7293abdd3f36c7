"""Results drawn on images: `draw(result, image)`.

A task with results of a type of its own says in its `draw.py` how they are drawn: `@draw.register(ThatType)`.

Sizes are (width, height) here, as Pillow has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

import numpy as np
import PIL.Image
import torch
from PIL import ImageDraw
from PIL.Image import Image, Resampling

from internimage.data.images.read import ImageInput, read_shown
from internimage.types import Classification, Detections, Segmentation
from internimage.visualize.tags import place_tags, write_tag
from internimage.visualize.text import ACCENT, FAINT, PANEL, SECONDARY, Color, bar_row, distinct_color

# The side of a square image at which text has its natural size; beyond it, text grows with the image.
NATURAL_SIDE = 560
PANEL_WIDTH = 360
NUM_ROWS = 5
NUM_LEGEND_ROWS = 8
OPACITY = 0.5  # of the class colors over an image
LOWEST_SCORE = 0.3  # of objects that are drawn
BACKGROUND = "background"  # pixels of a class of this name stay as they are, unless it has a color


@singledispatch
def draw(
    result: object,
    image: ImageInput,
    *,
    score_threshold: float = LOWEST_SCORE,
    has_legend: bool = True,
    longest_side: int | None = None,
) -> Image:
    """Draw a result on its image, which keeps its size.

    Args:
        result: what `predict` returned: a `Classification`, `Detections` or a `Segmentation`.
        image: the image it belongs to, see `data.images.read.read_rgb`; of images of other channels than
            RGB, the first three are shown, or the first as gray.
        score_threshold: detected objects below are left out, 0..1.
        has_legend: whether the classes of a segmentation are named below it.
        longest_side: the image is enlarged or reduced until its longest side has this many pixels; None leaves it.

    Returns:
        RGB image. For a classification: the image above a panel with the five most probable classes, which is at
        least 360 pixels wide. For a segmentation: the image, blended with the colors of its classes (but for one
        named "background" that has none), above a legend with the fractions of the largest ones. For detections: the
        image with boxes, names, scores and masks.

    Raises:
        TypeError: `result` is no result that can be drawn.
        ValueError: the image cannot be read, or is not the one of the result.

    Example:
        >>> import numpy as np, torch
        >>> result = Classification(torch.tensor([0.2, 0.8]), ("cat", "dog"))
        >>> draw(result, np.zeros((28, 28, 3), dtype=np.uint8), longest_side=448).width
        448
    """
    raise TypeError(
        f"draw takes a result of predict (Classification, Detections, Segmentation), given {type(result).__name__}"
    )


@draw.register
def _draw_classification(
    result: Classification, image: ImageInput, *, longest_side: int | None = None, **_: object
) -> Image:
    rows = [(name, score, SECONDARY if i else ACCENT) for i, (name, score) in enumerate(result.top(NUM_ROWS))]
    return _above_panel(_viewed(read_shown(image), longest_side), rows)


@draw.register
def _draw_segmentation(
    result: Segmentation, image: ImageInput, *, has_legend: bool = True, longest_side: int | None = None, **_: object
) -> Image:
    drawn = _own_image(result, image, longest_side)
    colors = np.array(result.palette or [distinct_color(i) for i in range(result.num_classes)], dtype=np.uint8)
    unpainted = [i for i in range(result.num_classes) if not result.palette and result.class_name(i) == BACKGROUND]
    colors[unpainted] = FAINT
    labels = result.label_map.numpy()[np.ix_(*_source_pixels(drawn, result.original_hw))]
    blended = PIL.Image.blend(drawn, PIL.Image.fromarray(colors[labels]), OPACITY)
    blended.paste(drawn, mask=PIL.Image.fromarray(np.isin(labels, unpainted)))
    if not has_legend:
        return blended
    fractions = result.pixel_counts / result.label_map.numel()
    largest = [int(i) for i in fractions.argsort(descending=True, stable=True)[:NUM_LEGEND_ROWS]]
    legend = [(result.class_name(i), float(fractions[i]), _color(colors[i])) for i in largest if fractions[i] >= 0.0005]
    return _above_panel(blended, legend)


@draw.register
def _draw_detections(
    result: Detections,
    image: ImageInput,
    *,
    score_threshold: float = LOWEST_SCORE,
    longest_side: int | None = None,
    **_: object,
) -> Image:
    drawn = _own_image(result, image, longest_side)
    shown = result.filter(score_threshold=score_threshold)
    colors = [distinct_color(label) for label in shown.labels.tolist()]
    if shown.run_length_masks is not None:
        rows, columns = _source_pixels(drawn, result.original_hw)
        pixels = np.array(drawn)
        for mask, color in reversed(list(zip(shown.run_length_masks.sampled(rows, columns), colors, strict=True))):
            pixels[mask] = ((1 - OPACITY) * pixels[mask] + OPACITY * np.array(color)).astype(np.uint8)
        drawn = PIL.Image.fromarray(pixels)
    unit = _unit(drawn)
    height, width = result.original_hw
    scale = torch.tensor([drawn.width / width, drawn.height / height]).repeat(2)
    pen = ImageDraw.Draw(drawn)
    boxes = (shown.boxes_xyxy * scale).round().int().tolist()
    texts = [f"{name} {score:.0%}" for name, score in zip(shown.names, shown.scores.tolist(), strict=True)]
    size = round(14 * unit)
    places = place_tags([(box[0], box[1], box[2], box[3]) for box in boxes], texts, size, drawn.size)
    for box, color in reversed(list(zip(boxes, colors, strict=True))):  # the best on top
        pen.rectangle(box, outline=color, width=max(2, round(2 * unit)))
    for place, text, color in reversed(list(zip(places, texts, colors, strict=True))):
        write_tag(drawn, place, text, size, color)
    return drawn


def _own_image(result: Detections | Segmentation, image: ImageInput, longest_side: int | None) -> Image:
    """Read the image of a result in the size it is drawn in."""
    drawn = read_shown(image)
    if (drawn.height, drawn.width) != result.original_hw:
        raise ValueError(
            f"the result is of an image of (height, width) {result.original_hw}, given one of "
            f"{(drawn.height, drawn.width)}"
        )
    return _viewed(drawn, longest_side)


def _viewed(drawn: Image, longest_side: int | None) -> Image:
    """Return the image in the size it is drawn in."""
    if longest_side is None or longest_side == max(drawn.size):
        return drawn
    if longest_side < 1:
        raise ValueError(f"longest_side must be at least 1 pixel, given {longest_side}")
    return fit_inside(drawn, (longest_side, longest_side))


def fit_inside(image: Image, size: tuple[int, int]) -> Image:
    """Scale an image to the largest size inside of a box, every side at least 1 pixel."""
    factor = min(size[0] / image.width, size[1] / image.height)
    # Enlarged several times, a smooth image is a blur: show its pixels, which are what the model saw.
    shows_pixels = factor >= 3
    if shows_pixels:
        factor = math.floor(factor)
    target = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    resampling = Resampling.NEAREST if shows_pixels else Resampling.LANCZOS
    return image.resize(target, resampling, reducing_gap=3.0 if factor < 1 else None)


def _unit(drawn: Image) -> float:
    """Return the size of text and lines, 1 for images of ordinary size; thin ones count by their area."""
    return max(1.0, math.sqrt(drawn.width * drawn.height) / NATURAL_SIDE)


def _source_pixels(drawn: Image, original_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column of the original that each row and column of the viewed image shows."""
    rows, columns = (
        ((np.arange(side) + 0.5) * (whole / side)).astype(np.int64)
        for side, whole in zip((drawn.height, drawn.width), original_hw, strict=True)
    )
    return rows, columns


def _color(values: np.ndarray) -> Color:
    return (int(values[0]), int(values[1]), int(values[2]))


def _above_panel(drawn: Image, rows: Sequence[tuple[str, float, Color]]) -> Image:
    """Put a panel of names, fractions and bars below an image."""
    unit = _unit(drawn)
    width = max(drawn.width, round(PANEL_WIDTH * unit))
    margin, row_height = round(20 * unit), round(40 * unit)
    panel_height = 2 * margin + row_height * len(rows) - round(10 * unit)
    canvas = PIL.Image.new("RGB", (width, drawn.height + panel_height), PANEL)
    canvas.paste(drawn, ((width - drawn.width) // 2, 0))
    for i, (name, score, color) in enumerate(rows):
        top = drawn.height + margin + i * row_height
        bar_row(canvas, (margin, top, width - margin), name, score, color=color, unit=unit)
    return canvas
