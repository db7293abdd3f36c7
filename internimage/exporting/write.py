"""`internimage.export`: a model to a file that another runtime runs, verified there before it gets its name."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from internimage.data.images.read import ImageInput
from internimage.exporting.options import ExportPrecision, Operators, WriteOptions
from internimage.files import replacing, writing
from internimage.flow import ExportGraph, GraphOptions, Network

if TYPE_CHECKING:  # the rest of this folder is loaded by the first export, not with the package
    from internimage.exporting.formats import Format
    from internimage.exporting.verification import Check


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Args:
        path: the file.
        description: the JSON file beside it: inputs, outputs, class names, how it was written.
        format: what the format is called.
        runtime: what ran it here.
        bytes: size of the file and what belongs to it.
        checks: one for each call that was compared with torch; none where the file cannot run here.
        not_run: why it was built, but not run here; None where it was run.
        notes: what else is known of the file, for example its number of nodes.
    """

    path: Path
    description: Path
    format: str
    runtime: str
    bytes: int
    checks: tuple[Check, ...]
    not_run: str | None
    notes: dict[str, object]


def export(
    model: Network,
    file: str | PathLike[str],
    *,
    dtype: ExportPrecision = "float32",
    operators: Operators = "auto",
    opset: int | None = None,
    batch: int | None = None,
    size_hw: tuple[int, int] | None = None,
    image_hw: tuple[int, int] | None = None,
    preprocess: bool = False,
    layout: Literal["nhwc", "nchw"] = "nhwc",
    postprocess: bool = False,
    mask_hw: tuple[int, int] | None = None,
    calibration: Sequence[ImageInput] = (),
    images: Sequence[ImageInput] | None = None,
    max_difference: float | None = None,
    min_agreement: float | None = None,
) -> Exported:
    """Write a model for another runtime, run the file there on images, and compare it with torch.

    A file that is too far from torch is not kept, and what had its name before stays. Beside the file comes
    `FILE.json` with names, shapes and units of inputs and outputs and with the class names; both are in the file, too.

    Args:
        model: a model of any task, or a bare backbone.
        file: where to write; the suffix is the format, `.onnx` for example.
        dtype: "float32"; "float16" (norms and positions stay float32); "int8", which takes `calibration`.
        operators: what deformable convolutions become: "deform_conv" (ONNX opset 19 and later), "grid_sample", or
            "auto" for the format's choice.
        opset: version of the ONNX operators, 16 to 23; None for the format's choice.
        batch: images of a call, None for any number.
        size_hw: (height, width) of the network's input in pixels, None for any.
        image_hw: (height, width) of the images in front of the preprocessing in pixels, None for any.
        preprocess: whether the graph reads uint8 images, and resizes and normalizes them itself.
        layout: order of the axes of such images.
        postprocess: whether the graph gives probabilities, boxes and masks or label maps in place of raw outputs.
        mask_hw: (height, width) of a canvas for the masks of objects, with `postprocess`; see `GraphOptions`.
        calibration: images that set the ranges of an int8 file, 100 or more of what the model will see.
        images: what the file is verified with, None for the images of this package.
        max_difference: largest accepted difference over the largest value of an output; None for 1e-4 in float32 and no
            limit in narrower types.
        min_agreement: smallest accepted fraction of decisions (best classes, objects, labels of pixels) that are
            those of torch, 0..1; None for 0.995.

    Returns:
        What was written, with every comparison.

    Raises:
        ValueError: the suffix is of no format, the format or the model does not take an option, or the file is too far
            from torch.
        MissingExtra: the format needs packages that are not installed; the message holds the pip command.
        OSError: the file cannot be written.

    Example:
        >>> from internimage import load
        >>> model = load("internimage_pico_fashion")
        >>> export(model, "fashion.jpg")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: cannot tell the format of 'fashion.jpg' by its suffix; name the file with one of .onnx, ...
    """
    from internimage.exporting.file_model import FileModel
    from internimage.exporting.formats import format_of
    from internimage.exporting.graphs import build_graph
    from internimage.exporting.sample_inputs import bundled_images
    from internimage.exporting.verification import MAX_DIFFERENCE, MIN_AGREEMENT

    path = Path(file)
    if isinstance(model, FileModel):
        raise ValueError(f"{model.source} is an exported file already; export the model that it was made of")
    format_ = format_of(path)
    options = WriteOptions(dtype, operators, opset, tuple(calibration))
    if dtype not in format_.dtypes:
        raise ValueError(f"{format_.name} files are of {', '.join(format_.dtypes)}; given dtype={dtype!r}")
    format_.check(options)
    _check_writable(path)
    belonging = GraphOptions(batch, size_hw, image_hw, preprocess, layout, postprocess, mask_hw)
    graph = build_graph(model, belonging)
    tried = bundled_images() if images is None else list(images)
    if dtype == "float32" and max_difference is None:
        max_difference = MAX_DIFFERENCE
    limits = {"max_difference": max_difference, "min_agreement": min_agreement or MIN_AGREEMENT}
    with tempfile.TemporaryDirectory(prefix=f".{path.stem[:80]}.", dir=path.parent) as folder:
        return _write(graph, format_, options, path, Path(folder), tried, limits)


def _write(
    graph: ExportGraph,
    format_: Format,
    options: WriteOptions,
    path: Path,
    folder: Path,
    images: Sequence[ImageInput],
    limits: dict[str, float | None],
) -> Exported:
    """Write into a folder beside the path, verify, then move the files to their names."""
    from internimage.exporting.document import to_text
    from internimage.exporting.verification import failures, verify

    made = folder / path.name
    with writing(path):
        notes = format_.write(graph, options, made)
        not_run = format_.why_not_run()
        checks = () if not_run else verify(graph, format_.open(made), images)
        wrong = failures(checks, **limits) if checks else []
        if wrong:
            raise ValueError(
                f"{path} was not kept: the file {'; it '.join(wrong)}; choose another dtype or opset, give more "
                "calibration images, or state what is accepted (max_difference, min_agreement)"
            )
        text = json.dumps(json.loads(to_text(graph, notes)), indent=2, ensure_ascii=False) + "\n"
        described = folder / f"{path.name}.json"
        described.write_text(text, encoding="utf-8")
    size = sum(part.stat().st_size for part in folder.iterdir() if part != described)
    for part in sorted(folder.iterdir(), key=lambda part: part == made):  # the file itself last
        with replacing(path.parent / part.name) as temporary:
            shutil.move(part, temporary)
    beside = path.parent / described.name
    return Exported(path, beside, format_.name, format_.runtime, size, checks, not_run, notes)


def _check_writable(path: Path) -> None:
    """Raise before minutes of work where the file could not be written at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: its folder is not writable; choose another one")
