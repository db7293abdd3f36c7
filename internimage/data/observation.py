"""When and where an image was taken."""

from __future__ import annotations

import datetime
from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """When and where an image was taken.

    Args:
        date: day of the image; only the month is used, as in the published model. None if unknown.
        latitude: degrees north, -90..90, or None if unknown.
        longitude: degrees east, -180..180, or None if unknown.

    Example:
        >>> Observation(datetime.date(2018, 6, 1), latitude=0.0, longitude=6.7).latitude
        0.0
    """

    date: datetime.date | None = None
    latitude: float | None = None
    longitude: float | None = None

    def __post_init__(self) -> None:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError(
                f"give latitude and longitude together or neither, given {self.latitude} and {self.longitude}"
            )
        for name, limit in (("latitude", 90.0), ("longitude", 180.0)):
            degrees = getattr(self, name)
            if degrees is not None and not -limit <= degrees <= limit:  # also true for NaN
                raise ValueError(f"{name} must lie in {-limit:g}..{limit:g} degrees, given {degrees}")
