"""The suffixes of exported files, told without loading any runtime."""

from __future__ import annotations

from os import PathLike

# The module of each format holds its `FORMAT`; it is imported at first use. Longer suffixes stand first.
MODULES = {
    ".onnx": "internimage.exporting.onnx.file",
    ".xml": "internimage.exporting.openvino",
    ".aoti.pt2": "internimage.exporting.programs.compiled",
    ".pt2": "internimage.exporting.programs.file",
    ".engine": "internimage.exporting.tensorrt",
}


def suffix_of(name: str | PathLike[str]) -> str | None:
    """Return the suffix of an exported file, None for any other name.

    Example:
        >>> suffix_of("street.aoti.pt2"), suffix_of("internimage_t_1k_224")
        ('.aoti.pt2', None)
    """
    return next((suffix for suffix in MODULES if str(name).lower().endswith(suffix)), None)
