"""What the objects of a detection data set are: examples, ignored, too thin, broken."""

from __future__ import annotations

import numpy as np

from internimage.data.examples import ExampleCount
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.untrusted.problems import KEPT

SAMPLED = 200  # images whose headers are read where boxes are fractions of images of unknown size
FRACTIONS = (
    "boxes of this form are pixels, these look like fractions of the image (0..1): multiply them by width and height"
)
SPECIAL = (
    'some tools write "iscrowd": 1 for every mask of run lengths, or "difficult": 1 for every object; set it to 0 for '
    "single objects that should be found"
)


def count_examples(dataset: DetectionDataset) -> ExampleCount:
    """Count the objects of each class that a detector learns from; at most some headers of images are read."""
    states = dataset.states()
    is_thin = ~states.is_special & ~states.is_learnable
    if states.is_relative and len(states.labels) and _all_thin(dataset):
        is_thin = states.is_learnable.copy()
    is_example = states.is_learnable & ~is_thin
    advice = ""
    if not is_example.any():
        looks_relative = is_thin.any() and states.largest_side < 1.1 and not states.is_relative
        advice = FRACTIONS if looks_relative else SPECIAL if states.is_special.any() else ""
    others = {
        "objects that are crowds, ignored or difficult": int((states.is_special & ~is_example).sum()),
        "objects thinner than a pixel": int((is_thin & ~states.is_special).sum()),
    }
    return _count(dataset, states.labels[is_example], others, advice)


def count_targets(dataset: DetectionDataset) -> ExampleCount:
    """Count the objects of each class that metrics count: all but crowds, ignored and difficult ones."""
    states = dataset.states()
    is_counted = ~states.is_special | states.is_learnable  # groups of OpenImages are both
    advice = SPECIAL if is_counted.size and not is_counted.any() else ""
    others = {"objects that are crowds, ignored or difficult": int((~is_counted).sum())}
    return _count(dataset, states.labels[is_counted], others, advice)


def _count(dataset: DetectionDataset, labels: np.ndarray, others: dict[str, int], advice: str) -> ExampleCount:
    problems = dataset.problems
    if problems:
        what = "or more broken annotations" if len(problems) >= KEPT else "broken annotations"
        others = {**others, f"{what}, which are left out (the first one: {problems[0]})": len(problems)}
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    number = len(dataset)
    return ExampleCount("objects", dataset.class_names, tuple(counts.tolist()), others, number, number, advice)


def _all_thin(dataset: DetectionDataset) -> bool:
    """Whether the objects of some images are all thinner than a pixel; boxes that are fractions do not say it alone."""
    for index in np.linspace(0, len(dataset) - 1, num=min(SAMPLED, len(dataset)), dtype=np.int64).tolist():
        try:
            if dataset.num_examples(index):
                return False
        except ValueError:  # its header cannot be read, which is reported when it is
            return False
    return True
