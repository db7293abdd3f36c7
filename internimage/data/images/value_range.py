"""Numbers of any type to 8 bits: which values are black and white.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

import logging

import numpy as np

from internimage.data.images.image_file import BadImage

log = logging.getLogger(__name__)

Range = tuple[float, float]
SIXTEEN_BITS: Range = (0, 65535)
# Cameras of 10, 12 and 14 bits in files of 16 bits: the largest value that 14 bits hold.
LARGEST_OF_14_BITS = 16383

_warned: set[str] = set()


def to_8_bits(values: np.ndarray, value_range: Range) -> np.ndarray:
    """Map numbers to uint8: the lower end of the range to 0, the upper one to 255; what lies outside is cut.

    Example:
        >>> to_8_bits(np.array([0, 2048, 4095, 9000], dtype=np.uint16), (0, 4095)).tolist()
        [0, 128, 255, 255]
    """
    low, high = value_range
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(255 / (high - low))
    return np.rint(scaled.clip(0, 255, out=scaled), out=scaled).astype(np.uint8)


def sixteen_bits_to_8(values: np.ndarray, value_range: Range | None, name: str) -> np.ndarray:
    """Map 16-bit values to uint8; without a range, warn once of images that look like those of a 10- to 14-bit camera.

    `value_range` holds the values of black and white, None is 0..65535; `name` is what the warning calls the image.
    """
    if value_range is None:
        largest = int(values.max(initial=0))
        if 255 < largest <= LARGEST_OF_14_BITS and not _warned:
            _warned.add(name)
            bits = max(10, largest.bit_length())
            log.warning(
                "%s: the largest of its 16-bit values is %d, and 65535 is white: the model sees it nearly black. "
                "For a camera of %d bits set the value range: --value-range 0 %d, or value_range=(0, %d) in Python",
                name,
                largest,
                bits,
                2**bits - 1,
                2**bits - 1,
            )
    return to_8_bits(values, value_range or SIXTEEN_BITS)


def numbers_to_8_bits(values: np.ndarray, value_range: Range | None, name: str) -> np.ndarray:
    """Map an array to uint8: uint16, floating point and, with a range, other integers; uint8 stays as it is.

    `value_range` holds the values of black and white, None is 0..65535 (uint16) and 0..1 (floating point).

    Raises:
        BadImage: a ValueError; the numbers are of another type, not finite, or out of range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return sixteen_bits_to_8(values, value_range, name)
    is_float = np.issubdtype(values.dtype, np.floating)
    if not is_float and (value_range is None or not np.issubdtype(values.dtype, np.integer)):
        raise BadImage(
            f"{name}: arrays must be uint8 (0..255), uint16 (0..65535) or floating point (0..1), or of whole numbers "
            "whose range the preprocessing knows (value_range); convert it, for example with .astype('uint8')"
        )
    smallest, largest = float(values.min()), float(values.max())
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        raise BadImage(f"{name}: NaN or infinite values, expected 0..1 or values of the value range; replace them")
    if value_range is None and not (smallest >= 0.0 and largest <= 1.0):
        raise BadImage(
            f"{name}: floating-point values must lie in 0..1, given {smallest:g}..{largest:g}; divide 0..255 by 255, "
            "give images before normalization, or set the range of the values (value_range)"
        )
    return to_8_bits(values, value_range or (0.0, 1.0))
