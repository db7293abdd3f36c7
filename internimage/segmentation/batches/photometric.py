"""Photometric distortion of 8-bit images: brightness, contrast, saturation and hue, cut to 8 bits after each step.

Colors go to hue, saturation and value and back through OpenCV, which the published segmentors were trained with.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState

from internimage.errors import MissingExtra

HUES = 180  # OpenCV keeps them in steps of 2 degrees


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

    Raises:
        MissingExtra: OpenCV is not installed, and saturation or hue of RGB are to be changed.
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
    cv2 = opencv()
    if factor is not None:
        hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _scaled(hsv[..., 1], factor=factor)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if turn is not None:
        hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + turn) % HUES
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image


@functools.cache
def opencv() -> Any:
    """Return the module that converts colors.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", "train", "photometric distortion") from error
    cv2.setNumThreads(0)  # a team in every loader process would be too many, and does not live through a fork
    return cv2
