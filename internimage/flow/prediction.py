"""What the user asks of predictions, and how one is written and shown, whatever the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import PIL.Image


@dataclass(frozen=True)
class PredictionOptions:
    """What the user asks of predictions; `Task.prediction_options` says which of the later ones a task knows.

    Args:
        top_k: classes that a prediction names, where it is a choice among them.
        shown_score: objects below are neither drawn nor counted in a table, 0..1.
        score_threshold: objects below are left out, 0..1; None keeps all.
        classes: objects of other classes are left out; None keeps all.
        masks: whether the masks of objects are written.
        coco: whether entries of a COCO results file are made.
    """

    top_k: int = 5
    shown_score: float = 0.0
    score_threshold: float | None = None
    classes: tuple[str, ...] | None = None
    masks: bool = False
    coco: bool = False


@dataclass(frozen=True)
class Presented:
    """The prediction for one image, as `internimage predict` writes and shows it.

    Args:
        result: what is drawn.
        row: what is written, JSON types.
        prediction: what it is, in a few words; empty for nothing.
        value: its probability, its area, or how many there are, see `Task.headings`.
        more: what comes next, in a few words.
        num_hidden: objects that the words leave out.
        label_map: gives an image of class indices, to be kept beside the drawing.
        entries: of a COCO results file.
    """

    result: Any
    row: dict[str, Any]
    prediction: str
    value: str
    more: str
    num_hidden: int = 0
    label_map: Callable[[], PIL.Image.Image] | None = None
    entries: tuple[dict[str, Any], ...] = ()
