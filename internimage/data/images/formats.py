"""The one table of image files: which formats are opened, and the endings their names have."""

from __future__ import annotations

import struct
import zlib

from PIL.Image import DecompressionBombError

# Pixel formats only: Pillow also opens formats that run an interpreter (EPS) or that need the network.
FORMAT_SUFFIXES: dict[str, tuple[str, ...]] = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "MPO": (".mpo",),
    "PCX": (".pcx",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),  # last: it has no signature
}
FORMATS = tuple(FORMAT_SUFFIXES)
TIFF_SUFFIXES = frozenset(FORMAT_SUFFIXES["TIFF"])
# NumPy's own files: (H, W) or (H, W, C) arrays, for images of more channels or bits than other formats hold.
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
# What folders are searched for. A format that this Pillow lacks is listed all the same: its files are then refused by
# name, which is better than missing them without a word.
IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMAT_SUFFIXES.values() for suffix in suffixes) | ARRAY_SUFFIXES
# Images that people have and nothing here opens: what lies in a folder is at least named.
UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".eps", ".exr", ".hdr", ".dcm", ".ico"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"),
)

# What decoders raise on damaged files, apart from Pillow's own UnidentifiedImageError (an OSError).
DECODER_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, struct.error, zlib.error, DecompressionBombError),
)
