"""Photometric distortion of 8-bit images: brightness, contrast, saturation and hue, cut to 8 bits after each step.

Colors go to hue, saturation and value and back through OpenCV, which the published segmentors were trained with. Where
it is not installed its arithmetic (hue 0..179, fixed-point division) is followed here: equal on the way there, and on
the way back up to one gray level off, in few pixels or in one of ten, as processor and version of OpenCV go.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState

log = logging.getLogger(__name__)

HUES = 180
SHIFT = 12  # bits behind the point of the divisions
VECTOR = 32  # pixels that OpenCV converts at a time
# 255 / v and 30 / d for every value v and difference d, in fixed point.
_DIVISORS = np.concatenate(([np.inf], np.arange(1.0, 256.0)))
PER_VALUE = np.rint((255 << SHIFT) / _DIVISORS).astype(np.int32)
PER_DIFFERENCE = np.rint((HUES << SHIFT) / (6 * _DIVISORS)).astype(np.int32)


# Which of four levels red, green and blue have in each sixth of the circle of hues (and behind its end).
LEVEL_OF_SECTOR = np.array([[0, 2, 1, 1, 3, 0, 0, 2, 1], [3, 0, 0, 2, 1, 1, 3, 0, 0], [1, 1, 3, 0, 0, 2, 1, 1, 3]])


@dataclass(frozen=True)
class Photometric:
    """How far colors are moved; each change happens with probability 1/2.

    Args:
        brightness: largest number of gray levels added or taken away.
        contrast: smallest and largest factor on all channels.
        saturation: smallest and largest factor on the saturation.
        hue: largest turn of the hue, in steps of 2 degrees.

    Raises:
        ValueError: a range is negative or upside down.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __post_init__(self) -> None:
        if self.brightness < 0 or not 0 <= self.hue <= HUES // 2:
            raise ValueError(
                f"brightness must be 0 or more and hue lie in 0..{HUES // 2}, given {self.brightness} and {self.hue}"
            )
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be a smallest and a largest factor of 0 or more, given {(low, high)}")


def distort(image: np.ndarray, settings: Photometric, random: RandomState) -> np.ndarray:
    """Change the colors of an image at random; contrast comes before saturation and hue or after them.

    Args:
        image: (H, W, C) uint8 RGB, or of any other number of channels, which have neither saturation nor hue: these
            two changes are drawn and left out.
        settings: how far.
        random: where the draws come from.

    Returns:
        (H, W, C) uint8, another array or the given one.
    """
    if random.randint(2):
        image = _scaled(image, offset=random.uniform(-settings.brightness, settings.brightness))
    contrast_is_first = random.randint(2) == 1
    if contrast_is_first:
        image = _contrast(image, settings, random)
    factor = random.uniform(*settings.saturation) if random.randint(2) else None
    # A range without width draws as one of width 1, so that the numbers behind it stay the same.
    turn = int(random.randint(-settings.hue, max(settings.hue, 1 - settings.hue))) if random.randint(2) else None
    if image.shape[2] == 3 and (factor is not None or turn is not None):
        image = _change_color(image, factor, turn)
    return image if contrast_is_first else _contrast(image, settings, random)


def _contrast(image: np.ndarray, settings: Photometric, random: RandomState) -> np.ndarray:
    return _scaled(image, factor=random.uniform(*settings.contrast)) if random.randint(2) else image


def _scaled(values: np.ndarray, *, factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Return factor * values + offset, cut to 0..255 and down to whole numbers."""
    changed = values.astype(np.float32) * np.float32(factor) + np.float32(offset)
    return changed.clip(0, 255).astype(np.uint8)


def _change_color(image: np.ndarray, factor: float | None, turn: int | None) -> np.ndarray:
    """Scale the saturation, then turn the hue; colors pass through 8 bits between the two."""
    to_hsv, to_rgb = _conversions()
    if factor is not None:
        hsv = to_hsv(image)
        hsv[..., 1] = _scaled(hsv[..., 1], factor=factor)
        image = to_rgb(hsv)
    if turn is not None:
        hsv = to_hsv(image)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + turn) % HUES
        image = to_rgb(hsv)
    return image


Conversion = Callable[[np.ndarray], np.ndarray]


@functools.cache
def _conversions() -> tuple[Conversion, Conversion]:
    """From RGB to hue, saturation and value and back: OpenCV's, or where it is not installed our own."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        log.warning(
            "OpenCV is not installed; changed colors may be one gray level off what it gives. "
            "Install it with: pip install 'internimage[train]'"
        )
        return rgb_to_hsv, hsv_to_rgb
    cv2.setNumThreads(0)  # a team in every loader process would be too many, and does not live through a fork

    def convert(code: int, image: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(np.ascontiguousarray(image), code)

    return functools.partial(convert, cv2.COLOR_RGB2HSV), functools.partial(convert, cv2.COLOR_HSV2RGB)


def rgb_to_hsv(image: np.ndarray) -> np.ndarray:
    """Map (H, W, 3) uint8 RGB to uint8 hue 0..179, saturation and value.

    Example:
        >>> rgb_to_hsv(np.array([[[255, 0, 0], [0, 128, 0], [9, 9, 9]]], dtype=np.uint8)).tolist()
        [[[0, 255, 255], [60, 255, 128], [0, 0, 9]]]
    """
    red, green, blue = (image[..., i].astype(np.int16) for i in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    difference = value - np.minimum(np.minimum(red, green), blue)
    sector = red - green + 4 * difference
    np.copyto(sector, blue - red + 2 * difference, where=value == green)
    np.copyto(sector, green - blue, where=value == red)
    half = 1 << (SHIFT - 1)
    hue = (sector * PER_DIFFERENCE[difference] + half) >> SHIFT
    hue += HUES * (hue < 0)
    saturation = (difference * PER_VALUE[value] + half) >> SHIFT
    hsv = np.empty(image.shape, dtype=np.uint8)
    hsv[..., 0], hsv[..., 1], hsv[..., 2] = hue, saturation, value
    return hsv


def hsv_to_rgb(image: np.ndarray) -> np.ndarray:
    """Map (H, W, 3) uint8 hue 0..179, saturation and value to uint8 RGB.

    Example:
        >>> hsv_to_rgb(np.array([[[0, 255, 255], [60, 255, 128], [0, 0, 9]]], dtype=np.uint8)).tolist()
        [[[255, 0, 0], [0, 128, 0], [9, 9, 9]]]
    """
    one = np.float32(1)
    position = image[..., 0].astype(np.float32) * np.float32(6 / HUES)
    saturation, value = (image[..., i].astype(np.float32) * np.float32(1 / 255) for i in (1, 2))
    sector = position.astype(np.intp)
    part = position - sector.astype(np.float32)
    levels = np.stack(
        (
            value,
            value * (one - saturation),
            value * (one - saturation * part),
            value * (one - saturation * (one - part)),
        )
    )
    levels *= np.float32(255)
    # OpenCV cuts in whole vectors and rounds in the columns that are left over.
    whole = image.shape[1] - image.shape[1] % VECTOR
    np.rint(levels[:, :, whole:], out=levels[:, :, whole:])
    flat = levels.astype(np.uint8).ravel()
    place = np.arange(sector.size).reshape(sector.shape)
    channels = [flat[(LEVEL_OF_SECTOR[i] * sector.size)[sector] + place] for i in range(3)]
    return np.stack(channels, axis=-1)
