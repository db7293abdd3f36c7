"""Text and shapes on images: fonts, colors, bars.

Sizes are (width, height) here, as Pillow has them.
"""

from __future__ import annotations

import colorsys
import contextlib
import math
import unicodedata
from functools import cache

import PIL.Image
from PIL import ImageDraw, ImageFont
from PIL.Image import Image, Resampling

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
MAX_CHARACTERS = 200
# The font inside Pillow covers English; names in other scripts look for one of these on the machine.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")


def distinct_color(index: int) -> Color:
    """Return a color for a class without one; neighbors differ by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.75 - 0.3 * (index // 8 % 2), 0.95)
    return (round(red * 255), round(green * 255), round(blue * 255))


def write_text(canvas: Image, at: tuple[int, int], text: str, size: int, color: Color, *, max_width: int) -> None:
    """Write one line with its upper left corner at `at`, cut with an ellipsis where it is too long."""
    text = " ".join(text[:MAX_CHARACTERS].split())
    font = next((font for font in fonts(size) if _covers(font, text)), None)
    if font is None:
        text, font = _in_ascii(text), fonts(size)[0]
    if font.getlength(text) > max_width:
        while text and font.getlength(f"{text}…") > max_width:
            text = text[:-1]
        text = text.rstrip(" ,;") + "…"
    ImageDraw.Draw(canvas).text((at[0], at[1] + size), text, fill=color, font=font, anchor="ls")


@cache
def fonts(size: int) -> list[Font]:
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


def rounded(canvas: Image, box: tuple[int, int, int, int], radius: float, color: Color) -> None:
    """Fill a rectangle with smooth round corners; `box` is (left, top, right, bottom)."""
    width, height = box[2] - box[0], box[3] - box[1]
    fine = 4  # Pillow draws shapes without antialiasing: draw larger, then reduce
    mask = PIL.Image.new("L", (width * fine, height * fine), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * fine - 1, height * fine - 1), radius * fine, fill=255)
    canvas.paste(color, box, mask.resize((width, height), Resampling.BOX))


def bar_row(canvas: Image, box: tuple[int, int, int], name: str, score: float, *, color: Color, unit: float) -> None:
    """A class name, its probability at the right, and a bar below; `box` is (left, top, right)."""
    left, top, right = box
    size, percent = round(17 * unit), f"{score:.1%}"
    percent_width = math.ceil(fonts(size)[0].getlength(percent))
    name_width = right - left - percent_width - round(12 * unit)
    write_text(canvas, (left, top), name, size, TEXT, max_width=name_width)
    write_text(canvas, (right - percent_width, top), percent, size, FAINT, max_width=percent_width)
    bar_top, thickness = top + round(23 * unit), max(4, round(5 * unit))
    rounded(canvas, (left, bar_top, right, bar_top + thickness), thickness / 2, TRACK)
    filled = round((right - left) * score)
    if filled >= 1:
        rounded(canvas, (left, bar_top, left + max(filled, thickness), bar_top + thickness), thickness / 2, color)
