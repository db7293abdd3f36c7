"""Images from files, PIL, arrays and tensors, always as upright 8-bit images: RGB, or of the channels of a model.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from internimage.data.images.array_file import array_size, is_array_file, read_array_file, read_tiff_bands
from internimage.data.images.formats import TIFF_SUFFIXES
from internimage.data.images.image_file import (
    FOUR_CHANNELS,
    MAX_PIXELS,
    NetworkSize,
    check_not_empty,
    decode,
    decode_reduced,
    is_deep_color_png,
    loses_bands,
    shown_name,
)
from internimage.data.images.image_file import BadImage as BadImage
from internimage.data.images.image_file import image_size as file_size
from internimage.data.images.raster import RGB, Image, Raster, Reading, pixels_of, to_rgb
from internimage.data.images.value_range import Range, numbers_to_8_bits, sixteen_bits_to_8, to_8_bits
from internimage.data.untrusted.archives import PackedFile

ImageInput = str | PathLike[str] | PIL.Image.Image | np.ndarray | Tensor | Raster


def read_rgb(source: ImageInput, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Return an image as upright 8-bit RGB.

    The EXIF orientation is applied. Gray, palette and CMYK images are converted; an alpha channel is dropped, as
    Pillow's `convert("RGB")` does, so transparent pixels show the color stored under them. 16-bit gray is scaled by
    255/65535. 32-bit integer and floating-point gray is read as 0..1 (floating point only), 0..255 or 0..65535, the
    first range that holds its largest value. Of an animation the first frame is taken.

    Args:
        source: path of a file, PIL image, (H, W, 3) RGB or (H, W) gray array, or (3, H, W) RGB tensor; arrays and
            tensors are uint8 or floating point in 0..1, arrays also uint16 in 0..65535.
        max_pixels: largest accepted H * W of a file; a larger one is refused before its pixels are decoded.

    Returns:
        PIL image of mode "RGB"; the given one itself when it needs no change.

    Raises:
        BadImage: a ValueError; the file is missing, empty, damaged, too large or no image, or an array or tensor
            has another shape, type or range.
        TypeError: `source` is none of the above.

    Example:
        >>> read_rgb(np.zeros((2, 3), dtype=np.uint8)).size
        (3, 2)
    """
    image = read_image(source, max_pixels=max_pixels)
    return image.to_rgb() if isinstance(image, Raster) else image


def read_image(
    source: ImageInput, reading: Reading = RGB, *, max_pixels: int = MAX_PIXELS, network_hw: NetworkSize | None = None
) -> Image:
    """Return an upright 8-bit image with the channels that a model reads.

    RGB and gray are converted to one another. Other numbers of channels must be those of the file: the bands of a TIFF
    file (or one band on each of its pages), the last axis of an array, the four channels of an RGBA or CMYK image.

    Args:
        source: path of a file (NumPy's `.npy` and `.npz` among them), PIL image, (H, W, C) or (H, W) array, (C, H, W)
            tensor, or what this function has returned before.
        reading: number of channels, and which values are black and white.
        max_pixels: largest accepted H * W of a file; a larger one is refused before its pixels are decoded.
        network_hw: maps (height, width) of a file to the size that a model needs, in pixels: a huge JPEG file may then
            be decoded at a smaller size, see `internimage.data.images.image_file.decode_reduced`.

    Returns:
        A PIL image of mode "RGB" (3 channels) or "L" (1 channel); for other numbers, and for a file decoded at a
        smaller size, a `Raster`.

    Raises:
        BadImage: a ValueError; the source cannot be read, or has another number of channels.
        TypeError: `source` is none of the above.

    Example:
        >>> read_image(np.zeros((2, 3, 5), dtype=np.uint16), Reading(channels=5)).size
        (3, 2)
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, given {max_pixels}")
    if isinstance(source, str | PathLike):
        return _read_file(source, reading, max_pixels, network_hw)
    if isinstance(source, Raster):
        name = f"image of {source.channels} channels"
        return source if source.channels == reading.channels else _from_array(source.pixels, reading, name)
    if isinstance(source, PIL.Image.Image):
        name = str(getattr(source, "filename", "")) or f"PIL image (mode {source.mode}, size {source.size})"
        check_not_empty(source.size, name)
        return _convert(decode(source, name, max_pixels)[0], reading, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, reading, f"{source.dtype} array {source.shape}")
    if isinstance(source, Tensor):
        return _from_tensor(source, reading)
    raise TypeError(
        "an image must be a path, a PIL image, a (H, W, 3) or (H, W) uint8 array or a (3, H, W) tensor, "
        f"given {type(source).__name__}"
    )


def read_shown(source: ImageInput) -> PIL.Image.Image:
    """Return an image to look at, RGB: of arrays and files of other channels the first three, or the first as gray.

    Raises:
        BadImage: a ValueError; the source cannot be read.
        TypeError: `source` is no image.
    """
    if isinstance(source, str | PathLike) and is_array_file(source):
        source = read_array_file(source, max_pixels=MAX_PIXELS)
    channels = 3
    if isinstance(source, Raster):
        channels = source.channels
    elif isinstance(source, np.ndarray | Tensor) and source.ndim == 3:
        channels = source.shape[2] if isinstance(source, np.ndarray) else source.shape[0]
    return to_rgb(read_image(source, RGB if channels == 1 else Reading(channels)))


def image_size(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) of an image file in pixels, upright, from its header alone.

    Raises:
        BadImage: a ValueError; the file is missing, too large or no image.
    """
    if is_array_file(path):
        return array_size(path, max_pixels=max_pixels)
    try:
        return file_size(path, max_pixels=max_pixels)
    except BadImage:
        if Path(path).suffix.lower() not in TIFF_SUFFIXES or not Path(path).is_file():
            raise
        height, width, _ = read_tiff_bands(path, max_pixels=max_pixels).shape  # of a kind that Pillow does not know
        return height, width


def _read_file(path: str | PathLike[str], reading: Reading, max_pixels: int, network_hw: NetworkSize | None) -> Image:
    name = shown_name(path)
    if is_array_file(path):
        return _from_array(read_array_file(path, max_pixels=max_pixels), reading, name)
    suffix = Path(path).suffix.lower()
    wants_all = reading.channels not in (1, 3) or reading.value_range is not None
    is_tiff = suffix in TIFF_SUFFIXES and (isinstance(path, PackedFile) or Path(path).is_file())
    if is_tiff and wants_all and loses_bands(path, reading.channels, max_pixels=max_pixels):
        return _from_array(read_tiff_bands(path, max_pixels=max_pixels), reading, name)
    if suffix == ".png" and reading.value_range is not None and is_deep_color_png(path):
        raise BadImage(
            f"{name}: of 16-bit color PNG files Pillow reads the upper 8 bits only, which no value range fits; "
            "save the image as TIFF or as an (H, W, C) array (.npy)"
        )
    side = reading.decode_side
    image, original_hw = decode_reduced(path, network_hw, shorter_side=side, max_pixels=max_pixels)
    converted = _convert(image, reading, name)
    is_whole = side is not None or original_hw == (converted.height, converted.width)
    if isinstance(converted, Raster) or is_whole:
        return converted
    return Raster(pixels_of(converted), original_hw)


def _convert(image: PIL.Image.Image, reading: Reading, name: str) -> Image:
    """Convert a loaded image of any mode to the channels that are wanted."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _narrow(image, reading.value_range, name)
    if reading.channels == 1:
        return image if image.mode == "L" else _to_rgb(image, name).convert("L")
    if reading.channels == 3:
        return _to_rgb(image, name)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if len(image.getbands()) != reading.channels or image.mode not in (*FOUR_CHANNELS, "LA"):
        raise _wrong_channels(name, f"{len(image.getbands())} channels (mode {image.mode})", reading)
    return Raster(np.asarray(image))


def _wrong_channels(name: str, given: str, reading: Reading) -> BadImage:
    wanted = "1 channel" if reading.channels == 1 else f"{reading.channels} channels"
    return BadImage(
        f"{name}: the model reads images of {wanted}, given {given}; give TIFF files of as many bands or "
        f"(H, W, {reading.channels}) arrays (.npy), or take a model for these images (in_chans)"
    )


def _to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Convert a loaded 8-bit image of any mode to RGB."""
    if image.mode == "RGB":
        return image
    if image.mode in ("P", "PA", "RGBa"):  # straight to RGB, Pillow warns (transparency) or cannot
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise BadImage(f"{name}: {error}; convert the image to RGB first") from error


def _narrow(image: PIL.Image.Image, value_range: Range | None, name: str) -> PIL.Image.Image:
    """Scale a gray image of 16 or 32 bits to 8 bits; see `read_rgb` for the ranges."""
    values = np.asarray(image)  # (H, W)
    # PNG and PPM have no 32-bit gray: older Pillow versions open their 16-bit gray as "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return PIL.Image.fromarray(sixteen_bits_to_8(values, value_range, name))
    smallest, largest = float(values.min()), float(values.max())
    if value_range is None:
        scales = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        value_range = next(((0, scale) for scale in scales if 0 <= smallest <= largest <= scale), None)
    if value_range is None or not np.isfinite(smallest + largest):
        raise BadImage(
            f"{name}: the gray values lie in {smallest:g}..{largest:g}, which fits neither 0..255 nor 0..65535 "
            "(nor 0..1 in floating point); scale them to 8 bits first, or set the range of the values (value_range)"
        )
    return PIL.Image.fromarray(to_8_bits(values, value_range))


def _from_array(array: np.ndarray, reading: Reading, name: str) -> Image:
    """Convert an (H, W) or (H, W, C) array."""
    if array.ndim not in (2, 3):
        raise BadImage(
            f"{name}: arrays must be (H, W, 3) RGB, (H, W) gray, or (H, W, C) for a model of C channels, one image each"
        )
    check_not_empty((array.shape[1], array.shape[0]), name)
    given = 1 if array.ndim == 2 else array.shape[2]
    is_convertible = reading.channels in (1, 3) and given in (1, 3)
    if given != reading.channels and not is_convertible:
        if reading.channels == 3:
            raise BadImage(
                f"{name}: arrays must be (H, W, 3) RGB or (H, W) gray; channels first is the order of tensors; a model "
                f"for {given} channels is built with in_chans={given}"
            )
        hint = " (channels first: give an (H, W, C) array)" if array.shape[0] == reading.channels else ""
        raise _wrong_channels(name, f"{given} channels in an array {array.shape}{hint}", reading)
    values = numbers_to_8_bits(array.reshape(*array.shape[:2], given), reading.value_range, name)
    if given not in (1, 3) or reading.channels not in (1, 3):
        return Raster(values)
    image = PIL.Image.fromarray(np.ascontiguousarray(values[..., 0] if given == 1 else values))
    return image.convert("L" if reading.channels == 1 else "RGB")


def _from_tensor(tensor: Tensor, reading: Reading) -> Image:
    """Convert a (C, H, W) tensor."""
    name = f"{str(tensor.dtype).removeprefix('torch.')} tensor {tuple(tensor.shape)}"
    channels = reading.channels
    if tensor.ndim != 3 or tensor.shape[0] != channels:
        kind = "RGB" if channels == 3 else "as the model has channels"
        raise BadImage(
            f"{name}: tensors must be ({channels}, H, W) {kind}, one image each; give a batch as a list of them"
        )
    check_not_empty((tensor.shape[2], tensor.shape[1]), name)
    if not tensor.is_floating_point() and tensor.dtype != torch.uint8 and reading.value_range is None:
        raise BadImage(f"{name}: tensors must be uint8 (0..255) or floating point (0..1)")
    values = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    return _from_array(values.permute(1, 2, 0).cpu().numpy(), reading, name)
