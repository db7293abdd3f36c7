"""The size in which images are viewed.

Sizes are (width, height) here, as Pillow has them.
"""

from __future__ import annotations

import math

from PIL.Image import Image, Resampling


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
