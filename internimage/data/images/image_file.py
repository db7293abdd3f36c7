"""Image files to Pillow images: upright, in their own mode, within limits, and without a line on stderr.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import PIL.Image
from PIL.Image import DecompressionBombError, DecompressionBombWarning, Transpose, UnidentifiedImageError

from internimage.data.images.decoder_notes import report_notes, silence_libtiff
from internimage.data.images.formats import ARRAY_SUFFIXES, DECODER_ERRORS, FORMATS
from internimage.data.untrusted.archives import PackedFile

# The largest phone sensors take images of 200 megapixels; decoded, one needs 0.8 GB.
MAX_PIXELS = 200_000_000
# A JPEG file of more pixels, each side at least `REDUCED_FACTOR` times what the model needs, is decoded at a half, a
# quarter or an eighth of its size, never below twice what the model needs. Smaller ones keep the published numbers.
REDUCED_FROM_PIXELS, REDUCED_FACTOR, REDUCED_TO_FACTOR = 32_000_000, 4, 2

_TOO_LARGE = "make it smaller, or open it with read_rgb(path, max_pixels=...) and give the result"
# Pillow's limit and Python's warnings belong to the whole process.
_PROCESS_STATE = threading.RLock()

ORIENTATION_TAG, BITS_PER_SAMPLE, SAMPLES_PER_PIXEL = 274, 258, 277
UPRIGHT: dict[object, Transpose] = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SWAPS_SIDES = (5, 6, 7, 8)

# Pillow's modes of four channels that mean nothing but themselves; "RGBa" and the like hold products.
FOUR_CHANNELS = ("RGBA", "CMYK", "RGBX")

NetworkSize = Callable[[tuple[int, int]], tuple[int, int]]


class BadImage(ValueError):
    """An image cannot be read; the message names it, says why, and what to do."""


def decode_image(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Decode a file, upright and in its own mode: the pixel values of label maps and depth maps stay what they are.

    Args:
        path: image file.
        max_pixels: largest accepted H * W; a larger one is refused before its pixels are decoded.

    Raises:
        BadImage: a ValueError; the file is missing, empty, damaged, too large or no image.
    """
    return decode_reduced(path, None, max_pixels=max_pixels)[0]


def decode_reduced(
    path: str | PathLike[str],
    network_hw: NetworkSize | None,
    *,
    shorter_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """Decode a file like `decode_image`, a huge JPEG file at a smaller size where that is enough.

    Args:
        path: image file.
        network_hw: maps (height, width) of the file to the size that the model needs, in pixels; None decodes all.
        shorter_side: pixels that are enough, see `Reading.decode_side`; None decodes all.
        max_pixels: largest accepted H * W of the file.

    Returns:
        (image, (height, width) of the whole image, upright).

    Raises:
        BadImage: a ValueError; the file is missing, empty, damaged, too large or no image.
    """
    name = shown_name(path)
    with open_image_file(path) as file:  # decoded completely, so that nothing depends on the open file afterward
        image = _open(file, name, max_pixels)
        whole_wh = image.size
        if image.format in ("JPEG", "MPO"):
            if network_hw is not None:
                _reduce(image, network_hw, is_turned=_orientation(image, name) in SWAPS_SIDES)
            if shorter_side is not None and 2 * shorter_side <= min(image.size):
                scale = shorter_side / min(image.size)
                image.draft(None, (math.ceil(scale * image.width), math.ceil(scale * image.height)))
        result, is_turned = decode(image, name, max_pixels)
        return result, whole_wh if is_turned else (whole_wh[1], whole_wh[0])


def shown_name(path: str | PathLike[str]) -> str:
    """Return a path for messages: pathlib takes a slash away from what was an address.

    Example:
        >>> shown_name(Path("https://example.com/a.jpg"))
        'https://example.com/a.jpg'
    """
    return re.sub(r"^(https?|ftp|s3|gs):/(?!/)", r"\1://", str(path))


def open_image_file(path: str | PathLike[str]) -> BinaryIO:
    """Open a file, also one inside of an archive, for reading, or say why it cannot be.

    Raises:
        BadImage: a ValueError; the file is missing, empty, no regular file, or may not be read.
    """
    if isinstance(path, PackedFile):
        return _open_packed(path)
    path, name = Path(path), shown_name(path)
    try:
        if not path.exists():
            if "://" in name:
                raise BadImage(f"{name}: addresses are not downloaded; download the image first, then give the file")
            raise BadImage(f"{name}: there is no such file; check the path (relative to {Path.cwd()})")
        if path.is_dir():
            raise BadImage(f"{name}: this is a folder; give the files in it")
        if not path.is_file():
            raise BadImage(f"{name}: this is no regular file; save the image to a file first")
        if path.stat().st_size == 0:
            raise BadImage(f"{name}: the file is empty (0 bytes); copy or download it again")
        return path.open("rb")
    except OSError as error:
        raise BadImage(f"{name}: the file cannot be opened ({error.strerror}); check path and permissions") from error


def _open_packed(file: PackedFile) -> BinaryIO:
    try:
        content = file.read()
    except (ValueError, OSError) as error:
        raise BadImage(str(error)) from error
    if not content:
        raise BadImage(f"{file}: the file is empty (0 bytes); write the archive again")
    return io.BytesIO(content)


def _reduce(image: PIL.Image.Image, network_hw: NetworkSize, *, is_turned: bool) -> None:
    """Have a huge JPEG file decoded at a smaller size; see `REDUCED_FROM_PIXELS`."""
    if image.width * image.height <= REDUCED_FROM_PIXELS:
        return
    if is_turned:
        width, height = network_hw((image.width, image.height))
    else:
        height, width = network_hw((image.height, image.width))
    if image.width >= REDUCED_FACTOR * width and image.height >= REDUCED_FACTOR * height:
        image.draft(None, (REDUCED_TO_FACTOR * width, REDUCED_TO_FACTOR * height))


def _open(file: BinaryIO, name: str, max_pixels: int) -> PIL.Image.Image:
    """Read the header of an image file."""
    PIL.Image.init()
    known = [kind for kind in FORMATS if kind in PIL.Image.OPEN]
    try:
        with _own_pixel_limit(max_pixels), _noting(name):
            image = PIL.Image.open(file, formats=known)
    except UnidentifiedImageError as error:
        raise BadImage(
            f"{name}: this is no image of a known format ({', '.join(known)}), or its header is damaged; "
            "convert it to JPEG or PNG"
        ) from error
    except DecompressionBombError as error:
        raise BadImage(f"{name}: the image has more pixels than the limit of {max_pixels}; {_TOO_LARGE}") from error
    except DECODER_ERRORS as error:
        raise BadImage(f"{name}: the header is damaged ({error}); copy or download the file again") from error
    check_not_empty(image.size, name)
    if image.width * image.height > max_pixels:
        raise BadImage(
            f"{name}: the image has more pixels (height {image.height}, width {image.width}) than the limit of "
            f"{max_pixels}; {_TOO_LARGE}"
        )
    return image


@contextmanager
def _own_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Replace Pillow's limit, which is global and warns before it raises, by ours, which only raises."""
    with _PROCESS_STATE:
        before = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _noting(name: str) -> Iterator[None]:
    """Report what Pillow warns of with the name of the file, instead of as a line of Pillow's code."""
    with _PROCESS_STATE:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DecompressionBombWarning)  # our own limit decides
            yield
        report_notes(name, [str(entry.message) for entry in caught])


def check_not_empty(size_wh: tuple[int, int], name: str) -> None:
    """Raise BadImage for an image without pixels."""
    width, height = size_wh
    if width < 1 or height < 1:
        raise BadImage(f"{name}: the image has no pixels (height {height}, width {width})")


def decode(image: PIL.Image.Image, name: str, max_pixels: int) -> tuple[PIL.Image.Image, bool]:
    """Load the pixels of an opened image and turn them upright; also return whether that has swapped its sides.

    Raises:
        BadImage: a ValueError; the pixels are damaged or not complete.
    """
    try:
        if image.format == "TIFF":  # checks the size of its tiles against Pillow's own limit, and warns, while it loads
            silence_libtiff()
            with _own_pixel_limit(max_pixels), _noting(name):
                image.load()
        else:
            image.load()
    except MemoryError as error:
        raise BadImage(f"{name}: the image does not fit into memory; make it smaller") from error
    except DECODER_ERRORS as error:
        raise BadImage(f"{name}: the image is damaged or not complete ({error}); copy or download it again") from error
    turn = _orientation(image, name)
    upright = image.transpose(UPRIGHT[turn]) if turn in UPRIGHT else image
    return upright, turn in SWAPS_SIDES


def _orientation(image: PIL.Image.Image, name: str) -> object:
    """Return what EXIF says of the orientation."""
    try:
        with _noting(name):
            return image.getexif().get(ORIENTATION_TAG)
    except DECODER_ERRORS:  # a damaged EXIF block says nothing about the pixels: take them as they are
        return None


def image_size(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) of an image file in pixels, upright, from its header alone.

    Raises:
        BadImage: a ValueError; the file is missing, too large or no image.
    """
    (height, width), turns = _read_header(path, max_pixels)
    return (width, height) if turns else (height, width)


def is_turned(path: str | PathLike[str]) -> bool:
    """Return whether the EXIF orientation of an image file swaps its height and width; never in NumPy's files.

    Raises:
        BadImage: a ValueError; the file is missing, too large or no image.
    """
    return Path(path).suffix.lower() not in ARRAY_SUFFIXES and _read_header(path, MAX_PIXELS)[1]


def _read_header(path: str | PathLike[str], max_pixels: int) -> tuple[tuple[int, int], bool]:
    """Return (height, width) as they are stored, and whether the EXIF orientation swaps them."""
    name = shown_name(path)
    try:
        with Path(path).open("rb") as file:
            image = _open(file, name, max_pixels)
            turns = _orientation(image, name) in SWAPS_SIDES
    except OSError as error:
        raise BadImage(f"{name}: the file cannot be opened ({error.strerror}); check path and permissions") from error
    return (image.height, image.width), turns


def loses_bands(path: str | PathLike[str], channels: int, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether Pillow cannot open a TIFF file, or drops bands or bits where `channels` with all their bits are wanted.

    Raises:
        BadImage: a ValueError; the file cannot be opened at all, or is too large.
    """
    with open_image_file(path) as file:
        try:
            image: Any = _open(file, shown_name(path), max_pixels)
        except BadImage as error:
            if isinstance(error.__cause__, DecompressionBombError):
                raise
            return True
        is_tiff = image.format == "TIFF"
        is_deep = is_tiff and max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8
        if channels in (1, 3):
            return is_deep and int(image.tag_v2.get(SAMPLES_PER_PIXEL, 1)) > 1
        # How Pillow unpacks it differs from its mode where channels are dropped or multiplied.
        unpacked = image.tile[0][3] if is_tiff and image.tile else image.mode
        unpacked = unpacked if isinstance(unpacked, str) else unpacked[0]
        return is_deep or image.mode not in FOUR_CHANNELS or image.mode != unpacked


def is_deep_color_png(path: str | PathLike[str]) -> bool:
    """Whether a PNG file holds several channels of 16 bits, of which Pillow keeps the upper 8."""
    with open_image_file(path) as file:
        header = file.read(26)
    return len(header) == 26 and header.startswith(b"\x89PNG") and header[24] == 16 and header[25] in (2, 4, 6)
