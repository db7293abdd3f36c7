"""The settings that every implementation of `ms_deform_attn` takes."""

from __future__ import annotations

from typing import Any, NamedTuple

LEVELS_SCHEMA = "SymInt[] sizes, bool normalized, bool softmax"


class Levels(NamedTuple):
    """Geometry of a call; `sizes` holds height and width of every level, flat; symbolic in a compiler or exporter."""

    sizes: tuple[Any, ...]
    normalized: bool
    softmax: bool

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every level."""
        return list(zip(self.sizes[::2], self.sizes[1::2], strict=True))
