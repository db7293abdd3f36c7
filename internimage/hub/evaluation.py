"""`evaluate`: a model of any task on a data set."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from typing import Any

from internimage import parallel, tasks
from internimage.data import ImageDataset
from internimage.flow import AnyModel, Report
from internimage.options import Part

TIMEOUT = datetime.timedelta(minutes=30)  # how long a process that has done its part waits for the others


def evaluate(
    model: AnyModel,
    data: ImageDataset[Any] | str | PathLike[str],
    *,
    split: Part = "val",
    batch_size: int | None = None,
    workers: int = 0,
    folder: str | PathLike[str] | None = None,
    max_unreadable: int = 50,
    published: Mapping[str, float] | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    share: bool = True,
    **options: Any,
) -> Report:
    """Measure a model on every image of a data set.

    Under torchrun or accelerate launch, all processes call this: each measures a part of the images, and each returns
    the report of all of them, which is that of a single process. The first one writes files.

    Args:
        model: what `internimage.load` or `internimage.create` returned; its mode is restored afterwards.
        data: a folder in any layout of docs/data.md, a COCO annotations file, or an opened data set.
        split: which part of a folder: "train", "val" or "test".
        batch_size: images in one forward pass, at least 1; None for what is usual for the task.
        workers: reading processes; 0 reads in this one.
        folder: where results are kept image by image, so that a run that was cut goes on there; None keeps nothing.
        max_unreadable: broken images that are left out and listed in the report.
        published: metrics of the original to stand beside the measured ones, or the name of a published checkpoint.
        progress: called with (images done, images in all) after each batch.
        share: whether processes that were started together share the images; False measures all of them in this one.
        options: what only some tasks take: `tta`, `preprocess` and `on_prediction` for segmentors, `tta`, `merge`,
            `metric` and `images` for detectors, `confusion` for classifiers; see `evaluate_segmentation`,
            `evaluate_detection` and `evaluate_classification` in the module `evaluate` of each task.

    Returns:
        The report of the task: `to_dict()`, `rows()`, `per_class()`, `skipped`, and its metrics as attributes.

    Raises:
        TypeError: the task does not take an option.
        ValueError: the data has classes that the model does not know, or nothing to measure; too many images are
            broken; or `folder` holds results of another model, other data or other settings; or the processes that
            share the images were given different models.
        FileNotFoundError: the folder lacks the data.
        BlockingIOError: another process works in `folder`.
        ConnectionError: another process has ended, or did not answer for half an hour.

    Example:
        >>> import internimage as ii
        >>> ii.evaluate(ii.load("internimage_pico_fashion"), "nowhere", tta=True)
        Traceback (most recent call last):
        TypeError: tta is for detection and segmentation, this model is for classification
    """
    task = tasks.of_model(model)
    for name in options:
        if not task.takes(name):
            known = " and ".join(tasks.taking(name)) or "no task"
            raise TypeError(f"{name} is for {known}, this model is for {task.name}")
    if batch_size is not None:
        options["batch_size"] = batch_size
    measure = partial(
        task.evaluate,
        model,
        data,
        split=split,
        workers=workers,
        folder=folder,
        max_unreadable=max_unreadable,
        published=published,
        progress=progress,
        **options,
    )
    if not share:
        return measure()
    from internimage.launch import sharing

    with sharing(TIMEOUT):
        _refuse_differences(model, data, split, batch_size, folder)
        return measure()


def _refuse_differences(model: AnyModel, *arguments: ImageDataset[Any] | str | PathLike[str] | int | None) -> None:
    """Compare what the processes that share an evaluation were given.

    Raises:
        ValueError: they differ.
    """
    if parallel.world() > 1:
        from internimage.evaluation.record_log import model_fingerprint

        given = parallel.gathered((model_fingerprint(model), *map(_text, arguments)))
        if len(set(given)) > 1:
            columns = zip(("model", "data", "split", "batch_size", "folder"), zip(*given, strict=True), strict=True)
            differing = [name for name, values in columns if len(set(values)) > 1]
            raise ValueError(
                f"the processes that share an evaluation were given different arguments ({', '.join(differing)}); give "
                "all of them the same, or measure in each one by itself with share=False"
            )


def _text(argument: ImageDataset[Any] | str | PathLike[str] | int | None) -> str:
    """Return what is compared of an argument; opened data sets by their kind and length."""
    if argument is None or isinstance(argument, str | PathLike | int):
        return str(argument)
    return f"{type(argument).__name__} {len(argument)}"
