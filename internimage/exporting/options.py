"""What a caller may ask of an exported file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from internimage.data.images.read import ImageInput

Operators = Literal["auto", "deform_conv", "grid_sample"]
ExportPrecision = Literal["float32", "float16", "int8"]
Axis = Literal["batch", "height", "width"]
AXES: tuple[Axis, ...] = ("batch", "height", "width")


@dataclass(frozen=True)
class ExportOptions:
    """What the graph in a file takes and gives, and how it is written; see `internimage.export`.

    Args:
        dtype: floating type of weights and maps; "int8" quantizes linear layers and convolutions.
        operators: which standard operators deformable convolutions become; "auto" is the format's choice.
        opset: version of the ONNX operators, None for the format's choice.
        dynamic: axes of the input that may vary from call to call.
        size_hw: (height, width) in pixels of the example, and of every input where these axes are fixed; None for the
            size that the model was made for.
        batch: images of one call where the batch is fixed, at least 1.
        preprocess: whether the graph takes uint8 images, resizes and normalizes them itself.
        postprocess: whether the graph gives results (probabilities, boxes, a label map) in place of raw outputs.
        calibration: images whose activations set the ranges of an int8 file.
    """

    dtype: ExportPrecision = "float32"
    operators: Operators = "auto"
    opset: int | None = None
    dynamic: tuple[Axis, ...] = ("batch",)
    size_hw: tuple[int, int] | None = None
    batch: int = 1
    preprocess: bool = False
    postprocess: bool = True
    calibration: tuple[ImageInput, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        unknown = [axis for axis in self.dynamic if axis not in AXES]
        if unknown:
            raise ValueError(f"dynamic takes axes out of {', '.join(AXES)}; given {unknown[0]!r}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, given {self.batch}")
        if self.size_hw is not None and min(self.size_hw) < 1:
            raise ValueError(f"size must be at least 1 pixel each way, given {self.size_hw}")
        if self.dtype == "int8" and not self.calibration:
            raise ValueError("an int8 file needs calibration images: give calibration=[...], 100 of them or more")
        if self.dtype != "int8" and self.calibration:
            raise ValueError(f"calibration images are for dtype='int8'; given with {self.dtype!r}")
