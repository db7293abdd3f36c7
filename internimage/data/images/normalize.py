"""From 8-bit images to the numbers that networks see.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from internimage.data.images.raster import Reading, check_value_range
from internimage.ranges import Ranged

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Statistics = tuple[float, ...]
Config = TypeVar("Config", bound="Normalization")


class Normalization(Ranged, ABC):
    """What the preprocessing configurations of all tasks say of channels: one mean and one deviation for each.

    The configurations are data classes with the fields `mean`, `std` and `value_range`.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    mean: Statistics
    std: Statistics
    value_range: tuple[float, float] | None

    @property
    def channels(self) -> int:
        """Number of channels that are read."""
        return len(self.mean)

    @property
    def reading(self) -> Reading:
        """How images are read."""
        return Reading(self.channels, self.value_range)

    @abstractmethod
    def network_hw(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of an image in the network, before anything is cut off or padded, in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must hold one value for each channel, given {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, given {self.std}")
        check_value_range(self.value_range)


def for_channels(config: Config, channels: int) -> Config:
    """Return a configuration for a number of channels: those of RGB give each of other channels their average.

    Example:
        >>> from internimage.classification import ClassificationPreprocess
        >>> for_channels(ClassificationPreprocess(), 2).std
        (0.226, 0.226)
    """
    if config.channels == channels:
        return config
    changed: dict[str, Any] = {
        name: (round(sum(values) / len(values), 6),) * channels
        for name, values in (("mean", config.mean), ("std", config.std))
    }
    return replace(config, **changed)


def fitting_channels(config: Config, channels: int) -> Config:
    """Return the configuration that goes with a network: untouched statistics of RGB give way to their average.

    Raises:
        ValueError: statistics were given for another number of channels.
    """
    if config.channels == channels:
        return config
    defaults = type(config)()
    if (config.mean, config.std) != (defaults.mean, defaults.std):
        raise ValueError(
            f"the network reads {channels} channels, but mean and std of the preprocessing are those of "
            f"{config.channels}: {config.mean} and {config.std}; give one value for each channel"
        )
    return for_channels(config, channels)


def normalize(
    pixels: Tensor, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, white: float = 1.0
) -> Tensor:
    """Map (..., C) uint8 to float32; `mean` and `std`, one value a channel, are those of pixels scaled to 0..`white`.

    Example:
        >>> normalize(torch.full((1, 1, 3), 255, dtype=torch.uint8), mean=(0.5,) * 3, std=(0.25,) * 3).tolist()
        [[[2.0, 2.0, 2.0]]]
    """
    center, spread = (torch.tensor(values, dtype=torch.float64) * (255 / white) for values in (mean, std))
    return (pixels.float() - center.float()).mul_((1 / spread).float())
