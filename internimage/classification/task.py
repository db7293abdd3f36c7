"""Classification, as the rest of the house sees it."""

from __future__ import annotations

from internimage.classification.evaluate import evaluate_classification
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.published import published_config
from internimage.data import open_dataset
from internimage.flow import Task


def usual_hw(config: ClassifierConfig) -> tuple[int, int]:
    """Return the square that a classifier reads."""
    return config.preprocess.size, config.preprocess.size


TASK = Task(
    name="classification",
    noun="classifier",
    configs=(ClassifierConfig,),
    architectures=("classifier",),
    build=Classifier,
    published=published_config,
    usual_hw=usual_hw,
    open_data=open_dataset,
    evaluate=evaluate_classification,
)
