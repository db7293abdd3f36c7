"""Images that Pillow has no mode for: NumPy's files, and TIFF files of many bands or of 16 bits and more.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from internimage.data.images.formats import ARRAY_SUFFIXES, DECODER_ERRORS
from internimage.data.images.image_file import BadImage, open_image_file, shown_name

# Values of an image for each pixel that the limit allows: a hyperspectral image has fewer pixels than a photograph.
VALUES_PER_PIXEL_OF_THE_LIMIT = 4
MAX_PAGES = 1024
ARRAY_NAMES = ("image", "arr_0")  # in .npz files that hold more than one array

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_array_file(path: str | PathLike[str]) -> bool:
    """Whether a name is that of a NumPy file."""
    return Path(path).suffix.lower() in ARRAY_SUFFIXES


def read_array_file(path: str | PathLike[str], *, max_pixels: int) -> np.ndarray:
    """Return the (H, W) or (H, W, C) array of a .npy file, or of a .npz file with one array or one named "image".

    Nothing in the file is executed (no pickles), and no memory is taken that the file does not fill.

    Raises:
        BadImage: a ValueError; the file is missing, damaged, too large, or holds no such array.
    """
    with _array_stream(path) as (stream, name, size):
        shape, dtype = _header(stream, name, max_pixels)
        needed = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
        if needed > size:
            raise BadImage(f"{name}: the file is not complete ({size} bytes for an array of {needed}); copy it again")
        stream.seek(0)
        try:
            values = np.lib.format.read_array(stream, allow_pickle=False)
        except DECODER_ERRORS as error:
            raise BadImage(f"{name}: the array is damaged or not complete ({error}); copy it again") from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def array_size(path: str | PathLike[str], *, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) of the array in a NumPy file, from its header alone.

    Raises:
        BadImage: a ValueError; the file is missing, damaged, too large, or holds no image.
    """
    with _array_stream(path) as (stream, name, _):
        shape, _ = _header(stream, name, max_pixels)
        return shape[0], shape[1]


@contextmanager
def _array_stream(path: str | PathLike[str]) -> Iterator[tuple[IO[bytes], str, int]]:
    """Open the array of a NumPy file: the stream, its name for messages, and its size in bytes."""
    name = shown_name(path)
    with open_image_file(path) as file:
        if Path(path).suffix.lower() == ".npy":
            size = file.seek(0, 2)
            file.seek(0)
            yield file, name, size
            return
        try:
            with zipfile.ZipFile(file) as archive:
                member = _member(archive, name)
                with archive.open(member) as stream:
                    yield stream, name, member.file_size
        except BadImage:
            raise
        except (zipfile.BadZipFile, *DECODER_ERRORS) as error:
            raise BadImage(f"{name}: this is no complete .npz file ({error}); save it again") from error


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    arrays = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    chosen = list(arrays) if len(arrays) == 1 else [key for key in ARRAY_NAMES if key in arrays]
    if not chosen:
        raise BadImage(
            f"{name}: expected one array, or one named 'image', given {len(arrays)} "
            f"({', '.join(list(arrays)[:5])}); save it with numpy.savez(file, image=array)"
        )
    return arrays[chosen[0]]


def _header(stream: IO[bytes], name: str, max_pixels: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and type of an array; refuse what is no image before anything else is read."""
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = HEADERS[version](stream)
    except DECODER_ERRORS as error:
        raise BadImage(f"{name}: this is no NumPy array, or its header is damaged ({error})") from error
    if dtype.hasobject:
        raise BadImage(f"{name}: the array holds Python objects, which are not read; save numbers")
    check_shape(shape, name, max_pixels)
    return shape, dtype


def check_shape(shape: tuple[int, ...], name: str, max_pixels: int) -> None:
    """Raise BadImage unless a shape is that of an image within the limit."""
    if len(shape) not in (2, 3):
        raise BadImage(f"{name}: an image array must be (H, W) or (H, W, C), given {shape}")
    if min(shape) < 1:
        raise BadImage(f"{name}: the image has no pixels (shape {shape})")
    values = int(np.prod(shape, dtype=np.float64))
    if shape[0] * shape[1] > max_pixels or values > VALUES_PER_PIXEL_OF_THE_LIMIT * max_pixels:
        raise BadImage(f"{name}: the image has more pixels (shape {shape}) than the limit of {max_pixels}")


def read_tiff_bands(path: str | PathLike[str], *, max_pixels: int) -> np.ndarray:
    """Return the bands of a TIFF file as (H, W, C), with all their bits: those of its page, or one of each page.

    Raises:
        BadImage: a ValueError; the file is missing, damaged, too large, or tifffile is not installed.
    """
    name = shown_name(path)
    try:
        import tifffile
    except ImportError as error:
        raise BadImage(
            f"{name}: TIFF files of this kind are read by the package 'tifffile', which is not installed. Install it "
            "with: pip install 'internimage[bands]', or save the image as .npy (numpy.save, an (H, W, C) array)"
        ) from error
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else Python prints what it logs, without the name
    with open_image_file(path) as file:
        try:
            # Without the dialects of microscopes, which may name other files and have them opened.
            with tifffile.TiffFile(file, name=name, is_ome=False, is_scanimage=False, is_mmstack=False) as tiff:
                pages: list[Any] = [tiff.pages[i] for i in range(min(len(tiff.pages), MAX_PAGES))]
                if any(page.shape != pages[0].shape for page in pages):
                    pages = pages[:1]  # previews follow the image
                size_hw = (pages[0].imagelength, pages[0].imagewidth)
                values_per_pixel = int(np.prod(pages[0].shape)) // max(1, size_hw[0] * size_hw[1])
                check_shape((*size_hw, len(pages) * values_per_pixel), name, max_pixels)
                bands = [_channels_last(page) for page in pages]
        except BadImage:
            raise
        except DECODER_ERRORS as error:
            reason = " ".join(str(error).split())[:300]
            raise BadImage(f"{name}: the TIFF file is damaged, or of a kind that is not read ({reason})") from error
    return np.concatenate(bands, axis=2)


def _channels_last(page: Any) -> np.ndarray:
    """Return the (H, W, C) array of a page, whose samples may be planes."""
    values = page.asarray()
    if "S" not in page.axes:
        return values.reshape(page.imagelength, page.imagewidth, 1)
    return np.moveaxis(values, page.axes.index("S"), -1)
