"""What an evaluation returns, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol


class Report(Protocol):
    """What an evaluation has found."""

    quoted: ClassVar[frozenset[str]]  # names in `rows` of the metrics that papers quote

    @property
    def num_images(self) -> int:
        """Images that were measured."""
        ...

    @property
    def skipped(self) -> Sequence[tuple[int, str]]:
        """Index and reason of each image that was left out."""
        ...

    def fields(self, dataset: str) -> Mapping[str, str | None]:
        """Return name and text of the metrics that need no table; `dataset` is what published ones are of."""
        ...

    def rows(self) -> Sequence[tuple[str, float | None, float | None]]:
        """Return (name, measured, published) of the metrics of a table, 0..1; None where there is none."""
        ...

    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """Return the metrics of each class by name."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        ...
