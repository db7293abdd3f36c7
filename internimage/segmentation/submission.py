"""Predictions as the test servers of Cityscapes and ADE20K want them.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor

from internimage.data.class_names import match_classes, some_names
from internimage.data.label_maps.layouts import CITYSCAPES_LABEL_IDS
from internimage.data.labels import label_set
from internimage.files import replacing
from internimage.moved import renamed_keywords
from internimage.types import Segmentation

Benchmark = Literal["cityscapes", "ade20k"]

# The classes of a benchmark, and the value that its server expects for each.
SERVER_VALUES: dict[str, tuple[str, tuple[int, ...]]] = {
    "cityscapes": ("cityscapes_19", CITYSCAPES_LABEL_IDS),
    "ade20k": ("ade20k_150", tuple(range(1, 151))),
}


@renamed_keywords(answer="prediction")
def submission_image(prediction: Segmentation, benchmark: Benchmark) -> Image:
    """Return an answer as the gray image that a test server expects.

    Args:
        prediction: what `predict` returned.
        benchmark: "cityscapes" for the `labelIds` of its 19 classes, "ade20k" for classes counted from 1.

    Raises:
        ValueError: the benchmark is unknown, or has other classes.
    """
    if benchmark not in SERVER_VALUES:
        raise ValueError(f"benchmark must be one of {', '.join(SERVER_VALUES)}, given {benchmark!r}")
    labels, values = SERVER_VALUES[benchmark]
    if prediction.num_classes != len(values):
        raise ValueError(f"{benchmark} has {len(values)} classes, but the prediction has {prediction.num_classes}")
    match = match_classes(prediction.class_names or prediction.num_classes, label_set(labels).class_names)
    if match is None or match.missing:
        raise ValueError(
            f"{benchmark} has no classes {some_names(match.missing if match else ())}; its classes are "
            f"{some_names(label_set(labels).class_names)}"
        )
    table: Tensor = torch.tensor([values[row] for row in match.rows], dtype=torch.uint8)
    return PIL.Image.fromarray(table[prediction.label_map.long()].numpy())


@renamed_keywords(answer="prediction")
def save_submission(
    prediction: Segmentation, image: str | PathLike[str], folder: str | PathLike[str], *, benchmark: Benchmark
) -> Path:
    """Write a prediction for a test server as a PNG named like the image; see `submission_image`.

    An existing file is replaced only when the new one is complete.

    Returns:
        The file written.

    Raises:
        ValueError: see `submission_image`.
    """
    label_image = submission_image(prediction, benchmark)
    path = Path(folder) / f"{Path(image).stem}.png"
    with replacing(path) as temporary:
        label_image.save(temporary, "PNG")
    return path
