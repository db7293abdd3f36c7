"""Pictures from files, PIL, arrays and tensors, always as upright 8-bit RGB.

Shape legend: H W picture size in pixels.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
import torch
from PIL.Image import DecompressionBombError, DecompressionBombWarning, Transpose, UnidentifiedImageError
from torch import Tensor

Picture = str | PathLike[str] | PIL.Image.Image | np.ndarray | Tensor

# The largest phone sensors take pictures of 200 megapixels; decoded, one needs 0.8 GB.
MAX_PIXELS = 200_000_000

# Pixel formats only: Pillow also opens formats that run an interpreter (EPS) or that need the network.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TIFF",
    "WEBP",
    "TGA",  # last: it has no signature
)

# What decoders raise on damaged files, apart from Pillow's own UnidentifiedImageError (an OSError).
DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    DecompressionBombError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_TOO_LARGE = "make it smaller, or open it with read_picture(path, max_pixels=...) and give the result"
_PILLOW_LIMIT = threading.Lock()

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


class BadPicture(ValueError):
    """A picture cannot be read; the message names it, says why, and what to do."""


def read_picture(source: Picture, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Return a picture as upright 8-bit RGB.

    The EXIF orientation is applied. Grey, palette and CMYK pictures are converted; an alpha channel is dropped, as
    Pillow's `convert("RGB")` does, so transparent pixels show the colour stored under them. 16-bit grey is scaled by
    255/65535. 32-bit integer and floating-point grey is read as 0..1 (floating point only), 0..255 or 0..65535, the
    first range that holds its largest value. Of an animation the first frame is taken.

    Args:
        source: path of a file, PIL picture, uint8 (H, W, 3) RGB or (H, W) grey array, or (3, H, W) RGB tensor, uint8
            or floating point in 0..1.
        max_pixels: largest accepted H * W of a file; a larger one is refused before its pixels are decoded.

    Returns:
        PIL picture of mode "RGB"; the given one itself when it needs no change.

    Raises:
        BadPicture: a ValueError; the file is missing, empty, damaged, too large or no picture, or an array or tensor
            has another shape, type or range.
        TypeError: `source` is none of the above.

    Example:
        >>> read_picture(np.zeros((2, 3), dtype=np.uint8)).size
        (3, 2)
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, given {max_pixels}")
    if isinstance(source, str | PathLike):
        return _to_rgb(decode_picture(source, max_pixels=max_pixels), str(Path(source)))
    if isinstance(source, PIL.Image.Image):
        name = str(getattr(source, "filename", "")) or f"PIL picture (mode {source.mode}, size {source.size})"
        _check_not_empty(source.size, name)
        return _to_rgb(_decode(source, name, max_pixels), name)
    if isinstance(source, np.ndarray):
        return _read_array(source)
    if isinstance(source, Tensor):
        return _read_tensor(source)
    raise TypeError(
        "a picture must be a path, a PIL picture, a (H, W, 3) or (H, W) uint8 array or a (3, H, W) tensor, "
        f"given {type(source).__name__}"
    )


def decode_picture(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Decode a file, upright and in its own mode: the pixel values of label maps and depth maps stay what they are.

    Args:
        path: picture file.
        max_pixels: largest accepted H * W; a larger one is refused before its pixels are decoded.

    Raises:
        BadPicture: a ValueError; the file is missing, empty, damaged, too large or no picture.
    """
    path = Path(path)
    name = str(path)
    try:
        if not path.exists():
            raise BadPicture(f"{name}: there is no such file; check the path (relative to {Path.cwd()})")
        if path.is_dir():
            raise BadPicture(f"{name}: this is a folder; give the files in it")
        if not path.is_file():
            raise BadPicture(f"{name}: this is no regular file; save the picture to a file first")
        if path.stat().st_size == 0:
            raise BadPicture(f"{name}: the file is empty (0 bytes); copy or download it again")
        file = path.open("rb")
    except OSError as error:
        raise BadPicture(f"{name}: the file cannot be opened ({error.strerror}); check path and permissions") from error
    with file:  # decoded completely, so that nothing depends on the open file afterwards
        return _decode(_open(file, name, max_pixels), name, max_pixels)


def _open(file: BinaryIO, name: str, max_pixels: int) -> PIL.Image.Image:
    """Read the header of a picture file."""
    PIL.Image.init()
    known = [kind for kind in FORMATS if kind in PIL.Image.OPEN]
    try:
        with _own_pixel_limit(max_pixels):
            image = PIL.Image.open(file, formats=known)
    except UnidentifiedImageError as error:
        raise BadPicture(
            f"{name}: this is no picture of a known format ({', '.join(known)}), or its header is damaged; "
            "convert it to JPEG or PNG"
        ) from error
    except DecompressionBombError as error:
        raise BadPicture(f"{name}: the picture has more pixels than the limit of {max_pixels}; {_TOO_LARGE}") from error
    except DECODER_ERRORS as error:
        raise BadPicture(f"{name}: the header is damaged ({error}); copy or download the file again") from error
    _check_not_empty(image.size, name)
    if image.width * image.height > max_pixels:
        raise BadPicture(
            f"{name}: the picture has more pixels (height {image.height}, width {image.width}) than the limit of "
            f"{max_pixels}; {_TOO_LARGE}"
        )
    return image


@contextmanager
def _own_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Replace Pillow's limit, which is global and warns before it raises, by ours, which only raises."""
    with _PILLOW_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore", DecompressionBombWarning)
        before = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = before


def _check_not_empty(size_wh: tuple[int, int], name: str) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise BadPicture(f"{name}: the picture has no pixels (height {height}, width {width})")


def _decode(image: PIL.Image.Image, name: str, max_pixels: int) -> PIL.Image.Image:
    """Load the pixels and turn them upright."""
    try:
        if image.format == "TIFF":  # checks the size of its tiles against Pillow's own limit while it loads
            with _own_pixel_limit(max_pixels):
                image.load()
        else:
            image.load()
    except MemoryError as error:
        raise BadPicture(f"{name}: the picture does not fit into memory; make it smaller") from error
    except DECODER_ERRORS as error:
        raise BadPicture(
            f"{name}: the picture is damaged or not complete ({error}); copy or download it again"
        ) from error
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except DECODER_ERRORS:  # a damaged EXIF block says nothing about the pixels: take them as they are
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Convert a loaded picture of any mode to RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _narrow(image, name)
    elif image.mode in ("P", "PA", "RGBa"):  # straight to RGB, Pillow warns (transparency) or cannot
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise BadPicture(f"{name}: {error}; convert the picture to RGB first") from error


def _narrow(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Scale a grey picture of 16 or 32 bits to 8 bits; see `read_picture` for the ranges."""
    values = np.asarray(image)  # (H, W)
    smallest, largest = float(values.min()), float(values.max())
    # PNG and PPM have no 32-bit grey: older Pillow versions open their 16-bit grey as "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        full_scale = 65535
    else:
        scales = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        full_scale = next((scale for scale in scales if largest <= scale), 0)
    if not (full_scale and smallest >= 0):  # also true for NaN
        raise BadPicture(
            f"{name}: the grey values lie in {smallest:g}..{largest:g}, which fits neither 0..255 nor 0..65535 "
            "(nor 0..1 in floating point); scale them to 8 bits first"
        )
    return PIL.Image.fromarray(np.rint(values * np.float32(255 / full_scale)).astype(np.uint8))


def _read_array(array: np.ndarray) -> PIL.Image.Image:
    name = f"{array.dtype} array {array.shape}"
    if array.dtype != np.uint8:
        raise BadPicture(f"{name}: arrays must be uint8 with values 0..255; scale and convert with .astype('uint8')")
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] != 3):
        raise BadPicture(f"{name}: arrays must be (H, W, 3) RGB or (H, W) grey; channels first is the order of tensors")
    _check_not_empty((array.shape[1], array.shape[0]), name)
    return PIL.Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _read_tensor(tensor: Tensor) -> PIL.Image.Image:
    name = f"{str(tensor.dtype).removeprefix('torch.')} tensor {tuple(tensor.shape)}"
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise BadPicture(f"{name}: tensors must be (3, H, W) RGB, one picture each; give a batch as a list of them")
    _check_not_empty((tensor.shape[2], tensor.shape[1]), name)
    if tensor.is_floating_point():
        tensor = tensor.detach().float()
        smallest, largest = float(tensor.min()), float(tensor.max())
        if not (smallest >= 0.0 and largest <= 1.0):  # also true for NaN
            raise BadPicture(
                f"{name}: floating-point values must lie in 0..1, given {smallest:g}..{largest:g}; "
                "divide 0..255 by 255, and give pictures before normalisation"
            )
        tensor = (tensor * 255.0).round().byte()
    elif tensor.dtype != torch.uint8:
        raise BadPicture(f"{name}: tensors must be uint8 (0..255) or floating point (0..1)")
    return PIL.Image.fromarray(tensor.permute(1, 2, 0).contiguous().cpu().numpy())


def picture_size(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) of a picture file in pixels, upright, from its header alone.

    Raises:
        BadPicture: a ValueError; the file is missing, too large or no picture.
    """
    (height, width), turns = _read_header(path, max_pixels)
    return (width, height) if turns else (height, width)


def is_turned(path: str | PathLike[str]) -> bool:
    """Return whether the EXIF orientation of a picture file swaps its height and width.

    Raises:
        BadPicture: a ValueError; the file is missing, too large or no picture.
    """
    return _read_header(path, MAX_PIXELS)[1]


def _read_header(path: str | PathLike[str], max_pixels: int) -> tuple[tuple[int, int], bool]:
    """Return (height, width) as they are stored, and whether the EXIF orientation swaps them."""
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            image = _open(file, name, max_pixels)
            try:
                orientation = image.getexif().get(ORIENTATION_TAG)
            except DECODER_ERRORS:  # as in `read_picture`: a damaged EXIF block says nothing
                orientation = None
    except OSError as error:
        raise BadPicture(f"{name}: the file cannot be opened ({error.strerror}); check path and permissions") from error
    return (image.height, image.width), orientation in (5, 6, 7, 8)
