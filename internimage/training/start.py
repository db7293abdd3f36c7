"""Start weights are compared before they are taken over: nothing is skipped in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from internimage.errors import CheckpointMismatch


def compare_weights(
    source: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, hint: Callable[[Sequence[str]], str]
) -> None:
    """Raise with the full list of differences if weights are not those of a model.

    Args:
        source: what messages call the weights.
        state: the weights by name.
        expected: the weights of the model by name.
        hint: maps the names that are missing to what should be done.

    Raises:
        CheckpointMismatch: entries are missing, unexpected or of the wrong shape.
    """
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    wrong = [
        (key, tuple(value.shape), tuple(state[key].shape))
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or unexpected or wrong:
        raise CheckpointMismatch(source, missing, unexpected, wrong, hint(missing))
