"""A model for a command: loaded, on its device, in its precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from internimage.cli.terminal import Precision, choose_backend, choose_device, choose_dtype

if TYPE_CHECKING:
    from internimage.classification import Classifier
    from internimage.flow import TaskModel


def load_predictor(name: str, *, device: str, dtype: Precision, backend: str) -> TaskModel[Any]:
    """Return the model that MODEL names, see `internimage.load`.

    Raises:
        ValueError: MODEL is a bare backbone, which answers nothing.
    """
    from internimage.flow import TaskModel
    from internimage.zoo import load

    model = load(name, device=choose_device(device), dtype=choose_dtype(dtype), backend=choose_backend(backend))
    if not isinstance(model, TaskModel):
        raise ValueError(f"{name} holds a bare backbone, which gives maps and no answers; give a whole model")
    return model


def load_classifier(name: str, *, device: str, dtype: Precision, backend: str) -> Classifier:
    """Return the classifier that MODEL names, see `internimage.load`.

    Raises:
        ValueError: MODEL is no classifier.
    """
    from internimage.classification import Classifier

    model = load_predictor(name, device=device, dtype=dtype, backend=backend)
    if not isinstance(model, Classifier):
        raise ValueError(f"{name} is for {model.task}, this command takes a classifier")
    return model
