"""From 8-bit pictures to the numbers that networks see.

Shape legend: H W picture size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(picture: Tensor, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """Map (H, W, 3) uint8 RGB to float32; `mean` and `std` are those of pixels scaled to 0..1.

    Example:
        >>> normalize(torch.full((1, 1, 3), 255, dtype=torch.uint8), mean=(0.5,) * 3, std=(0.25,) * 3).tolist()
        [[[2.0, 2.0, 2.0]]]
    """
    center, spread = (torch.tensor(values, dtype=torch.float64) * 255 for values in (mean, std))
    return (picture.float() - center.float()).mul_((1 / spread).float())
