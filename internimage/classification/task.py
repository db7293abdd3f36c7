"""Classification, as the rest of the house sees it."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.published import published_config
from internimage.data import open_dataset
from internimage.flow import EvaluationOptions, Task

if TYPE_CHECKING:
    from internimage.classification.report import ClassificationReport

BATCH_SIZE = 64


def usual_hw(config: ClassifierConfig) -> tuple[int, int]:
    """Return the square that a classifier reads."""
    return config.preprocess.size, config.preprocess.size


def evaluate(model: Classifier, data: str | PathLike[str], options: EvaluationOptions) -> ClassificationReport:
    """Measure a classifier, see `internimage.classification.evaluate.evaluate_classification`."""
    from internimage.checkpoints.catalog import info
    from internimage.classification.evaluate import evaluate_classification
    from internimage.classification.report import published_metrics
    from internimage.files import replacing
    from internimage.visualize import draw_confusion

    report = evaluate_classification(
        model,
        data,
        split=options.split,
        batch_size=options.batch_size or BATCH_SIZE,
        workers=options.workers,
        folder=options.folder,
        published=None if options.published is None else published_metrics(info(options.published)),
        progress=options.progress,
    )
    if options.confusion is not None:
        with replacing(options.confusion) as temporary:
            draw_confusion(report.confusion, report.class_names).save(temporary, "PNG")
    return report


TASK = Task(
    name="classification",
    noun="classifier",
    configs=(ClassifierConfig,),
    architectures=("classifier",),
    build=Classifier,
    published=published_config,
    usual_hw=usual_hw,
    open_data=open_dataset,
    evaluate=evaluate,
    options=frozenset({"confusion", "folder"}),
)
