"""Which sizes an exported file takes: runtimes say little of them, and some run on with wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from internimage.flow import GraphDescription, GraphTensor


def check_inputs(description: GraphDescription, inputs: Sequence[Tensor], source: str) -> None:
    """Raise unless a file takes these inputs.

    Args:
        description: of the graph in the file.
        inputs: in its order.
        source: what messages call the file.

    Raises:
        ValueError: a type or a size is not one that the file takes; the message says which it takes and what to do.
    """
    limits = {free.name: free for free in description.dimensions}
    sizes: dict[str, int] = {}
    for expected, given in zip(description.inputs, inputs, strict=True):
        dtype = str(given.dtype).removeprefix("torch.")
        fits = given.dtype == getattr(torch, expected.dtype) and given.dim() == len(expected.shape)
        for side, size in zip(expected.shape, given.shape, strict=False):  # another number of axes does not fit anyway
            if isinstance(side, int):
                fits &= side == size
            else:
                free = limits[side]
                fits &= free.least <= size <= free.most and size % free.step == 0
                fits &= sizes.setdefault(side, size) == size
        if not fits:
            raise ValueError(
                f"{source} takes {expected.name} of {expected.dtype} {_shown(expected, description)}, given {dtype} "
                f"{tuple(given.shape)}; give it such, or export the model for these sizes"
            )


def _shown(tensor: GraphTensor, description: GraphDescription) -> str:
    """Write a shape with the range of each free size: (1..1024, 3, 224, 224)."""
    limits = {free.name: free for free in description.dimensions}
    sides = [
        str(side)
        if side not in limits
        else f"{limits[side].least}..{limits[side].most}" + f" by {limits[side].step}" * (limits[side].step > 1)
        for side in tensor.shape
    ]
    return f"({', '.join(sides)})"
