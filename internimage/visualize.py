"""Results drawn on pictures: `draw(result, picture)` for one, `contact_sheet` for many.

Sizes are (width, height) here, as Pillow has them.
"""

from __future__ import annotations

import colorsys
import contextlib
import math
import unicodedata
from collections.abc import Sequence
from functools import cache, singledispatch

import numpy as np
import PIL.Image
import torch
from PIL import ImageDraw, ImageFont
from PIL.Image import Image, Resampling, Transpose
from torch import Tensor

from internimage.data.pictures import Picture, read_picture
from internimage.types import Classification, Detections, Segmentation

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PANEL: Color = (17, 22, 29)
TILE: Color = (27, 34, 43)
TRACK: Color = (45, 55, 68)
TEXT: Color = (241, 245, 249)
FAINT: Color = (158, 170, 186)
ACCENT: Color = (45, 202, 168)
SECONDARY: Color = (84, 120, 148)
WRONG: Color = (244, 114, 104)

# Smaller pictures are enlarged and larger ones reduced, so that the caption is legible beside the picture.
SHORTEST_SIDE, LONGEST_SIDE = 448, 2048
# The longest side at which text has its natural size; beyond it, text grows with the picture.
NATURAL_SIDE = 640
PANEL_WIDTH = 360
NUM_ROWS = 5
NUM_LEGEND_ROWS = 8
OPACITY = 0.5  # of the class colors over a picture
LOWEST_SCORE = 0.3  # of objects that are drawn
MAX_CHARACTERS = 200
MAX_LABELLED_CLASSES = 30
BACKGROUND = "background"  # pixels of a class of this name stay as they are, unless it has a color

# The font inside Pillow covers English; names in other scripts look for one of these on the machine.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")


@singledispatch
def draw(result: object, image: Picture, *, score_threshold: float = LOWEST_SCORE, has_legend: bool = True) -> Image:
    """Draw a result on its picture.

    Args:
        result: what `predict` answered: a `Classification`, `Detections` or a `Segmentation`.
        image: the picture it belongs to, see `internimage.data.pictures.read_picture`.
        score_threshold: detected objects below are left out, 0..1.
        has_legend: whether the classes of a segmentation are named below it.

    Returns:
        RGB picture. For a classification: the picture, enlarged or reduced to a longest side of 448 to 2048 pixels,
        above a panel with the five most probable classes. For a segmentation: a picture of the same size, blended with
        the colors of its classes (but for one named "background" that has none), above a legend with the shares of the
        largest ones. For detections: the picture with boxes, names, scores and masks.

    Raises:
        TypeError: `result` is no result that can be drawn.
        ValueError: the picture cannot be read, or is not the one of the result.

    Example:
        >>> import numpy as np, torch
        >>> result = Classification(torch.tensor([0.2, 0.8]), ("cat", "dog"))
        >>> draw(result, np.zeros((28, 28, 3), dtype=np.uint8)).width
        448
    """
    raise TypeError(
        f"draw takes a result of predict (Classification, Detections, Segmentation), given {type(result).__name__}"
    )


@draw.register
def _draw_classification(result: Classification, image: Picture, **_: object) -> Image:
    rows = [(name, score, SECONDARY if i else ACCENT) for i, (name, score) in enumerate(result.top(NUM_ROWS))]
    return _above_panel(_fit_for_viewing(read_picture(image)), rows)


@draw.register
def _draw_segmentation(result: Segmentation, image: Picture, *, has_legend: bool = True, **_: object) -> Image:
    picture = _own_picture(result, image)
    colors = np.array(result.palette or [distinct_color(i) for i in range(result.num_classes)], dtype=np.uint8)
    unpainted = [i for i in range(result.num_classes) if not result.palette and result.class_name(i) == BACKGROUND]
    colors[unpainted] = FAINT
    labels = result.label_map.numpy()[np.ix_(*_source_pixels(picture, result.original_hw))]
    blended = PIL.Image.blend(picture, PIL.Image.fromarray(colors[labels]), OPACITY)
    blended.paste(picture, mask=PIL.Image.fromarray(np.isin(labels, unpainted)))
    if not has_legend:
        return blended
    shares = result.pixel_counts / result.label_map.numel()
    largest = [int(i) for i in shares.argsort(descending=True, stable=True)[:NUM_LEGEND_ROWS]]
    legend = [(result.class_name(i), float(shares[i]), _color(colors[i])) for i in largest if shares[i] >= 0.0005]
    return _above_panel(blended, legend)


@draw.register
def _draw_detections(
    result: Detections, image: Picture, *, score_threshold: float = LOWEST_SCORE, **_: object
) -> Image:
    picture = _own_picture(result, image)
    shown = result.filter(score_threshold=score_threshold)
    colors = [distinct_color(label) for label in shown.labels.tolist()]
    if shown.run_length_masks is not None:
        rows, columns = _source_pixels(picture, result.original_hw)
        pixels = np.array(picture)
        for mask, color in reversed(list(zip(shown.run_length_masks.sampled(rows, columns), colors, strict=True))):
            pixels[mask] = ((1 - OPACITY) * pixels[mask] + OPACITY * np.array(color)).astype(np.uint8)
        picture = PIL.Image.fromarray(pixels)
    unit = max(1.0, max(picture.size) / NATURAL_SIDE)
    height, width = result.original_hw
    scale = torch.tensor([picture.width / width, picture.height / height]).repeat(2)
    pen = ImageDraw.Draw(picture)
    tags = zip(
        (shown.boxes_xyxy * scale).round().int().tolist(), shown.names, shown.scores.tolist(), colors, strict=True
    )
    for box, name, score, color in reversed(list(tags)):  # the best on top
        pen.rectangle(box, outline=color, width=max(2, round(2 * unit)))
        _tag(picture, (box[0], box[1]), f"{name} {score:.0%}", round(14 * unit), color)
    return picture


def _tag(canvas: Image, at: tuple[int, int], text: str, size: int, color: Color) -> None:
    """Write a line on a plate above a corner, or below it at the upper border."""
    width = min(canvas.width, math.ceil(_fonts(size)[0].getlength(text[:MAX_CHARACTERS])) + size)
    height = round(1.5 * size)
    left = max(0, min(at[0], canvas.width - width))
    top = at[1] - height if at[1] >= height else min(at[1], canvas.height - 1)
    ImageDraw.Draw(canvas).rectangle((left, top, left + width, top + height), fill=color)
    _text(canvas, (left + size // 2, top + size // 8), text, size, PANEL, max_width=width - size // 2)


def _own_picture(result: Detections | Segmentation, image: Picture) -> Image:
    """Read the picture of a result in the size it is viewed in."""
    picture = read_picture(image)
    if (picture.height, picture.width) != result.original_hw:
        raise ValueError(
            f"the result is of a picture of (height, width) {result.original_hw}, given one of "
            f"{(picture.height, picture.width)}"
        )
    return _fit_for_viewing(picture)


def _source_pixels(picture: Image, original_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column of the original that each row and column of the viewed picture shows."""
    rows, columns = (
        ((np.arange(side) + 0.5) * (whole / side)).astype(np.int64)
        for side, whole in zip((picture.height, picture.width), original_hw, strict=True)
    )
    return rows, columns


def distinct_color(index: int) -> Color:
    """Return a color for a class without one; neighbours differ by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.75 - 0.3 * (index // 8 % 2), 0.95)
    return (round(red * 255), round(green * 255), round(blue * 255))


def _color(values: np.ndarray) -> Color:
    return (int(values[0]), int(values[1]), int(values[2]))


def _above_panel(picture: Image, rows: Sequence[tuple[str, float, Color]]) -> Image:
    """Put a panel of names, shares and bars under a picture."""
    unit = max(1.0, max(picture.size) / NATURAL_SIDE)
    width = max(picture.width, round(PANEL_WIDTH * unit))
    margin, row_height = round(20 * unit), round(40 * unit)
    panel_height = 2 * margin + row_height * len(rows) - round(10 * unit)
    canvas = PIL.Image.new("RGB", (width, picture.height + panel_height), PANEL)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    for i, (name, score, color) in enumerate(rows):
        top = picture.height + margin + i * row_height
        _bar_row(canvas, (margin, top, width - margin), name, score, color=color, unit=unit)
    return canvas


def contact_sheet(
    results: Sequence[Classification],
    images: Sequence[Picture],
    *,
    truths: Sequence[str] | None = None,
    columns: int | None = None,
    heading: str = "",
) -> Image:
    """Lay out many pictures with their most probable class on one sheet.

    Args:
        results: one classification for each picture.
        images: the pictures.
        truths: the right class names; a wrong answer is marked and shows the right one. None if unknown.
        columns: tiles side by side, at least 1; None takes a layout of full rows where there is one.
        heading: a line above the tiles.

    Returns:
        RGB picture.

    Raises:
        TypeError: a result cannot be drawn.
        ValueError: the numbers of results, pictures and truths differ, there are none, or a picture cannot be read.
    """
    if not (results and len(results) == len(images) == (len(images) if truths is None else len(truths))):
        raise ValueError(
            "a contact sheet needs as many results as pictures (and truths), at least one; given "
            f"{len(results)}, {len(images)}{'' if truths is None else f', {len(truths)}'}"
        )
    if columns is None:
        columns = _fewest_empty_places(len(results))
    elif columns < 1:
        raise ValueError(f"columns must be at least 1, given {columns}")
    width, height, gap = 208, 246 if truths is None else 266, 14
    top = 64 if heading else 0
    num_rows = math.ceil(len(results) / columns)
    size = (gap + columns * (width + gap), top + gap + num_rows * (height + gap))
    canvas = PIL.Image.new("RGB", size, PANEL)
    if heading:
        _text(canvas, (gap + 2, 26), heading, 22, TEXT, max_width=size[0] - 2 * gap)
    for i, (result, image) in enumerate(zip(results, images, strict=True)):
        row, column = divmod(i, columns)
        tile = _tile(result, image, None if truths is None else truths[i], (width, height))
        canvas.paste(tile, (gap + column * (width + gap), top + gap + row * (height + gap)))
    return canvas


def _fewest_empty_places(number: int) -> int:
    """Return a number of columns, from a square to twice as wide as high, that fills the last row best."""
    choices = range(math.isqrt(number - 1) + 1, math.isqrt(2 * number) + 2)
    return min(choices, key=lambda columns: (-number % columns, -columns))


def _tile(result: Classification, image: Picture, truth: str | None, size: tuple[int, int]) -> Image:
    """One picture of a contact sheet with its answer."""
    if not isinstance(result, Classification):
        raise TypeError(f"a contact sheet takes Classification results, given {type(result).__name__}")
    width, height = size
    tile = PIL.Image.new("RGB", size, PANEL)
    _rounded(tile, (0, 0, width, height), 10, TILE)
    inner = width - 12
    picture = _fit_inside(read_picture(image), (inner, inner))
    tile.paste(picture, ((width - picture.width) // 2, 6 + (inner - picture.height) // 2))
    is_wrong = truth is not None and truth != result.name
    _bar_row(tile, (12, width, width - 12), result.name, result.score, color=WRONG if is_wrong else ACCENT, unit=0.95)
    if is_wrong:
        _text(tile, (12, width + 32), f"truth: {truth}", 14, WRONG, max_width=width - 24)
    return tile


def _bar_row(canvas: Image, box: tuple[int, int, int], name: str, score: float, *, color: Color, unit: float) -> None:
    """A class name, its probability at the right, and a bar below; `box` is (left, top, right)."""
    left, top, right = box
    size, percent = round(17 * unit), f"{score:.1%}"
    percent_width = math.ceil(_fonts(size)[0].getlength(percent))
    name_width = right - left - percent_width - round(12 * unit)
    _text(canvas, (left, top), name, size, TEXT, max_width=name_width)
    _text(canvas, (right - percent_width, top), percent, size, FAINT, max_width=percent_width)
    bar_top, thickness = top + round(23 * unit), max(4, round(5 * unit))
    _rounded(canvas, (left, bar_top, right, bar_top + thickness), thickness / 2, TRACK)
    filled = round((right - left) * score)
    if filled >= 1:
        _rounded(canvas, (left, bar_top, left + max(filled, thickness), bar_top + thickness), thickness / 2, color)


def _fit_for_viewing(picture: Image) -> Image:
    """Bring the longest side into 448..2048 pixels; small pictures keep their pixels visible."""
    longest = max(picture.size)
    if longest > LONGEST_SIDE:
        return _fit_inside(picture, (LONGEST_SIDE, LONGEST_SIDE))
    if longest < SHORTEST_SIDE:
        return _fit_inside(picture, (SHORTEST_SIDE, SHORTEST_SIDE))
    return picture


def _fit_inside(picture: Image, size: tuple[int, int]) -> Image:
    """Scale a picture to the largest size inside of a box, every side at least 1 pixel."""
    factor = min(size[0] / picture.width, size[1] / picture.height)
    # Enlarged several times, a smooth picture is a blur: show its pixels, which are what the model saw.
    shows_pixels = factor >= 3
    if shows_pixels:
        factor = math.floor(factor)
    target = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    resampling = Resampling.NEAREST if shows_pixels else Resampling.LANCZOS
    return picture.resize(target, resampling, reducing_gap=3.0 if factor < 1 else None)


def _text(canvas: Image, at: tuple[int, int], text: str, size: int, color: Color, *, max_width: int) -> None:
    """Write one line with its upper left corner at `at`, cut with an ellipsis where it is too long."""
    text = " ".join(text[:MAX_CHARACTERS].split())
    font = next((font for font in _fonts(size) if _covers(font, text)), None)
    if font is None:
        text, font = _in_ascii(text), _fonts(size)[0]
    if font.getlength(text) > max_width:
        while text and font.getlength(f"{text}…") > max_width:
            text = text[:-1]
        text = text.rstrip(" ,;") + "…"
    ImageDraw.Draw(canvas).text((at[0], at[1] + size), text, fill=color, font=font, anchor="ls")


@cache
def _fonts(size: int) -> list[Font]:
    """The font inside Pillow, then those that the machine has, for other scripts than English."""
    fonts: list[Font] = [ImageFont.load_default(size)]
    for name in SYSTEM_FONTS:
        with contextlib.suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    return fonts


def _covers(font: Font, text: str) -> bool:
    """Whether a font has a glyph for every character: a missing one looks like that of a non-character."""
    letters = {letter for letter in text if not letter.isascii()}
    return not letters or _glyph(font, "\U0010ffff") not in {_glyph(font, letter) for letter in letters}


def _glyph(font: Font, letter: str) -> bytes:
    """Draw one character."""
    cell = PIL.Image.new("1", (64, 64))
    ImageDraw.Draw(cell).text((16, 16), letter, fill=1, font=font)
    return cell.tobytes()


def _in_ascii(text: str) -> str:
    """Write letters without their accents, and what has no such form as a question mark."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode("ascii")


def _rounded(canvas: Image, box: tuple[int, int, int, int], radius: float, color: Color) -> None:
    """Fill a rectangle with smooth round corners; `box` is (left, top, right, bottom)."""
    width, height = box[2] - box[0], box[3] - box[1]
    fine = 4  # Pillow draws shapes without antialiasing: draw larger, then reduce
    mask = PIL.Image.new("L", (width * fine, height * fine), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * fine - 1, height * fine - 1), radius * fine, fill=255)
    canvas.paste(color, box, mask.resize((width, height), Resampling.BOX))


def draw_confusion(confusion: Tensor, class_names: Sequence[str]) -> Image:
    """Draw a confusion matrix: rows are the truth, columns the answers, brightness the share of the row.

    Args:
        confusion: (K, K) counts, or (K, K + 1) with a last column for answers that are none of the K classes.
        class_names: K names.

    Returns:
        RGB picture; up to 30 classes are labelled, and their shares in percent written into the cells.

    Raises:
        ValueError: the matrix is not (K, K) or (K, K + 1).
    """
    if tuple(confusion.shape) == (len(class_names), len(class_names) + 1):
        confusion, class_names = torch.cat([confusion, torch.zeros_like(confusion[:1])]), (*class_names, "others")
    number = len(class_names)
    if tuple(confusion.shape) != (number, number) or number == 0:
        raise ValueError(f"the matrix must be ({number}, {number}), one row per class, given {tuple(confusion.shape)}")
    shares = (confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    is_labelled = number <= MAX_LABELLED_CLASSES
    cell = 56 if is_labelled else max(1, 1500 // number)
    left, top = (180, 196) if is_labelled else (24, 72)
    canvas = PIL.Image.new("RGB", (max(640, left + number * cell + 24), top + number * cell + 24), PANEL)
    _text(canvas, (24, 22), "Confusion: rows are the truth, columns the answers", 20, TEXT, max_width=canvas.width - 48)
    canvas.paste(_colored(shares).resize((number * cell, number * cell), Resampling.NEAREST), (left, top))
    if is_labelled:
        _label(canvas, shares, class_names, cell, (left, top))
    return canvas


def _colored(shares: np.ndarray) -> Image:
    """Paint each share of a (K, K) matrix, 0..1, as one pixel: right answers in one hue, wrong ones in another."""
    strength = np.sqrt(shares)[..., None]  # (K, K, 1); the root shows rare confusions, too
    is_right = np.eye(len(shares), dtype=bool)[..., None]
    color = np.where(is_right, np.array(ACCENT), np.array(WRONG))
    return PIL.Image.fromarray((np.array(TILE) * (1 - strength) + color * 0.85 * strength).astype(np.uint8))


def _label(canvas: Image, shares: np.ndarray, names: Sequence[str], cell: int, corner: tuple[int, int]) -> None:
    """Write class names beside and above the cells, and percentages into them."""
    left, top = corner
    pen = ImageDraw.Draw(canvas)
    end = len(names) * cell
    for i, name in enumerate(names):
        pen.line((left + i * cell, top, left + i * cell, top + end), fill=PANEL, width=2)
        pen.line((left, top + i * cell, left + end, top + i * cell), fill=PANEL, width=2)
        _text(canvas, (24, top + i * cell + 17), name, 16, TEXT, max_width=left - 36)
        upright = PIL.Image.new("RGB", (top - 76, 24), PANEL)
        _text(upright, (0, 0), name, 16, TEXT, max_width=upright.width)
        canvas.paste(upright.transpose(Transpose.ROTATE_90), (left + i * cell + 16, 64))
        for j, share in enumerate(shares[i]):
            if share >= 0.0005:
                written = f"{100 * share:.1f}"
                x = left + j * cell + (cell - _fonts(14)[0].getlength(written)) / 2
                _text(canvas, (round(x), top + i * cell + 18), written, 14, TEXT, max_width=cell)
