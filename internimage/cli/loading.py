"""A model for a command: loaded, on its device, in its precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from internimage.cli.terminal import Precision, choose_backend, choose_device, choose_dtype

if TYPE_CHECKING:
    from internimage.flow import TaskModel


def load_predictor(
    name: str, *, device: str, dtype: Precision, backend: str, value_range: tuple[float, float] | None = None
) -> TaskModel[Any]:
    """Return the model that MODEL names, see `internimage.load`.

    Raises:
        ValueError: MODEL is a bare backbone, which predicts nothing.
    """
    from internimage.exporting.suffixes import suffix_of
    from internimage.flow import TaskModel
    from internimage.hub.load import load

    is_file_of_runtime = suffix_of(name) is not None  # which takes its inputs on the CPU, whatever it runs on
    model = load(
        name,
        value_range=value_range,
        device=choose_device("cpu" if is_file_of_runtime and device == "auto" else device),
        dtype=choose_dtype(dtype),
        backend=choose_backend(backend),
    )
    if not isinstance(model, TaskModel):
        raise ValueError(f"{name} holds a bare backbone, which gives maps and no answers; give a whole model")
    return model
