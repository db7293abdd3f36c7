"""How a graph is written to a file; what belongs to the graph itself is `flow.GraphOptions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from internimage.data.images.read import ImageInput

Operators = Literal["auto", "deform_conv", "grid_sample"]
ExportPrecision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class WriteOptions:
    """How a graph is written, see `internimage.export`.

    Args:
        dtype: floating type of weights and maps; "int8" quantizes linear layers and convolutions.
        operators: which standard operators deformable convolutions become; "auto" is the format's choice.
        opset: version of the ONNX operators, None for the format's choice.
        calibration: images whose activations set the ranges of an int8 file.

    Raises:
        ValueError: the options do not fit one another.
    """

    dtype: ExportPrecision = "float32"
    operators: Operators = "auto"
    opset: int | None = None
    calibration: Sequence[ImageInput] = ()

    def __post_init__(self) -> None:
        if self.dtype == "int8" and not self.calibration:
            raise ValueError("an int8 file needs calibration images: give calibration=[...], 100 of them or more")
        if self.dtype != "int8" and self.calibration:
            raise ValueError(f"calibration images are for dtype='int8'; given with {self.dtype!r}")
