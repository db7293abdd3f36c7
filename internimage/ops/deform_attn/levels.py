"""The settings that every implementation of `ms_deform_attn` takes."""

from __future__ import annotations

from typing import NamedTuple

LEVELS_SCHEMA = "int[] sizes, bool normalized, bool softmax"


class Levels(NamedTuple):
    """Geometry of a call; `sizes` holds height and width of every level, flat."""

    sizes: tuple[int, ...]
    normalized: bool
    softmax: bool

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every level."""
        return list(zip(self.sizes[::2], self.sizes[1::2], strict=True))
