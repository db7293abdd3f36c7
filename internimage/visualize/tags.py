"""Names beside boxes, placed so that they do not cover one another where there is room.

Sizes are (width, height) here, as Pillow has them; rectangles are (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import ImageDraw
from PIL.Image import Image

from internimage.visualize.text import MAX_CHARACTERS, PANEL, Color, fonts, write_text

Rectangle = tuple[int, int, int, int]
# Beyond, an image is full of names anyway, and looking for free places takes long.
MAX_PLACED = 200


def place_tags(boxes: Sequence[Rectangle], texts: Sequence[str], size: int, canvas: tuple[int, int]) -> list[Rectangle]:
    """Return where each name goes: above its box, else inside, below or beside it, wherever no better one is.

    Boxes and names are given best first; `size` is the height of the letters in pixels, `canvas` the size of the image.
    """
    taken: list[Rectangle] = []
    for i, (box, text) in enumerate(zip(boxes, texts, strict=True)):
        width = min(canvas[0], math.ceil(fonts(size)[0].getlength(text[:MAX_CHARACTERS])) + size)
        choices = _choices(box, (width, round(1.5 * size)), canvas)
        free = (place for place in choices if not any(_overlap(place, other) for other in taken))
        taken.append(next(free, choices[0]) if i < MAX_PLACED else choices[0])
    return taken


def _choices(box: Rectangle, size: tuple[int, int], canvas: tuple[int, int]) -> list[Rectangle]:
    """Return the places of a name, the usual one first."""
    left, top, right, bottom = box
    width, height = size
    corners = [
        (left, top - height if top >= height else min(top, canvas[1] - 1)),
        *((x, edge - up) for edge in (top, bottom) for x in (left, right - width) for up in (height, 0)),
        *((left, top + i * height) for i in range(1, (bottom - top) // height)),
    ]
    places: list[Rectangle] = []
    for x, y in corners:
        x = max(0, min(x, canvas[0] - width))
        if not places or 0 <= y <= canvas[1] - height:
            places.append((x, y, x + width, y + height))
    return places


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def write_tag(canvas: Image, place: Rectangle, text: str, size: int, color: Color) -> None:
    """Write a line on a plate."""
    ImageDraw.Draw(canvas).rectangle(place, fill=color)
    left, top, right, _ = place
    write_text(canvas, (left + size // 2, top + size // 8), text, size, PANEL, max_width=right - left - size // 2)
