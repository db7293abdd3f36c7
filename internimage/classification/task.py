"""Classification, as the rest of the house sees it."""

from __future__ import annotations

from internimage.classification.creation import create_config
from internimage.classification.evaluate import evaluate_classification
from internimage.classification.graph import ClassifierGraph
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.original.files import to_folder, to_original
from internimage.classification.original.names import CLASSIFIERS, own_kind
from internimage.classification.original.recognition import recognize
from internimage.classification.published import published_config
from internimage.flow import PredictionOptions, Presented, Task
from internimage.types import Classification

NUM_NEXT = 2


def usual_hw(config: ClassifierConfig) -> tuple[int, int]:
    """Return the square that a classifier reads."""
    return config.preprocess.size, config.preprocess.size


def present(result: Classification, options: PredictionOptions, image_id: int) -> Presented:
    """Return the most probable classes."""
    (name, score), *others = result.top(min(options.top_k, 1 + NUM_NEXT))
    more = ", ".join(f"{other} {probability:.1%}" for other, probability in others)
    return Presented(result, result.to_dict(options.top_k), name, f"{score:.1%}", more)


TASK = Task(
    name="classification",
    noun="classifier",
    configs=(ClassifierConfig,),
    architectures=("classifier",),
    build=Classifier,
    create=create_config,
    recognize=recognize,
    published=published_config,
    model_name=lambda _: "classifier",
    key_rules=CLASSIFIERS,
    own_kind=own_kind,
    to_original=to_original,
    to_folder=to_folder,
    usual_hw=usual_hw,
    evaluate=evaluate_classification,
    present=present,
    graph=ClassifierGraph,
)
