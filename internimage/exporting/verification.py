"""Whether a file that was written gives in its runtime what the model gives in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from internimage.data.images.read import ImageInput
from internimage.exporting.formats import Runner
from internimage.exporting.sample_inputs import calls, inputs
from internimage.flow import ExportGraph
from internimage.layers.evaluation_mode import evaluation_mode

MAX_DIFFERENCE = 1e-4  # of a float32 file, over the largest value of the output
MIN_AGREEMENT = 0.995  # of a narrower one


@dataclass(frozen=True)
class Check:
    """One call of a file, compared with torch.

    Args:
        call: shapes of the inputs, by name.
        max_difference: largest difference of an output, over the largest value of that output in torch; infinite where
            sizes differ.
        mean_difference: mean difference, over the same value; that of the worst output.
        agreement: fraction of what the outputs decide that is the same in both, 0..1.
    """

    call: dict[str, tuple[int, ...]]
    max_difference: float
    mean_difference: float
    agreement: float


def verify(graph: ExportGraph, runner: Runner, images: Sequence[ImageInput]) -> tuple[Check, ...]:
    """Run a file and torch on real images, in calls of several sizes where sizes are free.

    Args:
        graph: what was written.
        runner: the file in its runtime.
        images: the images.
    """
    found: list[Check] = []
    with evaluation_mode(graph), torch.inference_mode():
        for sizes in calls(graph):
            given = inputs(graph, images, sizes)
            expected = graph(*given)
            outputs = runner(given)
            names = (tensor.name for tensor in graph.description.inputs)
            shapes = {name: tuple(value.shape) for name, value in zip(names, given, strict=True)}
            differences = [_differences(ours, theirs) for ours, theirs in zip(outputs, expected, strict=True)]
            agreement = graph.agreement(outputs, expected)
            largest, mean = (max(column) for column in zip(*differences, strict=True))
            found.append(Check(shapes, largest, mean, agreement))
    return tuple(found)


def _differences(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Return the largest and the mean difference of an output, over its largest value."""
    if found.shape != expected.shape:
        return math.inf, math.inf
    if expected.numel() == 0:
        return 0.0, 0.0
    difference = (found.double() - expected.double()).abs()
    scale = float(expected.double().abs().max()) or 1.0
    # Infinite values of both are equal; NaN is as far as can be.
    difference = torch.where(found == expected, 0.0, difference.nan_to_num(nan=math.inf))
    return float(difference.max()) / scale, float(difference.mean()) / scale


def failures(checks: Sequence[Check], *, max_difference: float | None, min_agreement: float | None) -> list[str]:
    """Say what is wrong in checks; None is no limit."""
    found: list[str] = []
    worst = max(checks, key=lambda check: check.max_difference)
    if max_difference is not None and not worst.max_difference <= max_difference:
        found.append(
            f"differs from torch by {worst.max_difference:.3g} of the largest value (accepted: {max_difference:g}) for "
            f"inputs {worst.call}"
        )
    least = min(checks, key=lambda check: check.agreement)
    if min_agreement is not None and not least.agreement >= min_agreement:
        found.append(
            f"agrees with torch in {least.agreement:.2%} of what it decides (accepted: {min_agreement:.2%}) for inputs "
            f"{least.call}"
        )
    return found
