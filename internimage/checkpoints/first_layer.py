"""The first layer of a backbone for images of another number of channels than its weights were trained on.

Shape legend: O outputs, C channels, k side of the kernel.
"""

from __future__ import annotations

import re

from torch import Tensor

FIRST_LAYER = re.compile(r"(^|\.)patch_embed\.conv1\.weight$")
ADAPTED_FROM = (1, 3)


def is_adapted(key: str, given: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a weight is that of a first layer which differs in its channels only, and can be adapted."""
    return (
        bool(FIRST_LAYER.search(key))
        and len(given) == len(expected) == 4
        and given != expected
        and given[1] in ADAPTED_FROM
        and (given[0], *given[2:]) == (expected[0], *expected[2:])
    )


def adapt_first_layer(weight: Tensor, channels: int) -> Tensor:
    """Return the first layer for another number of channels.

    For one channel the weights of RGB are summed, so that a gray image gives what its three equal channels would give.
    For any other number they are repeated, channel after channel, and scaled by 3 / C, so that sums keep their size.

    Args:
        weight: (O, C, k, k) with C = 3 or 1.
        channels: the number wanted.

    Source: the rule is that of timm (`adapt_input_conv`), so that the same weights start the same way there and here.

    Example:
        >>> import torch
        >>> adapt_first_layer(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1), 4).flatten().tolist()
        [0.75, 1.5, 2.25, 0.75]
    """
    given = weight.shape[1]
    if channels == given:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-channels // given)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (given / channels)
