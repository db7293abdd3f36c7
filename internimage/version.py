"""The version of this package, as pip knows it."""

from __future__ import annotations

import importlib.metadata

try:
    __version__ = importlib.metadata.version("internimage")
except importlib.metadata.PackageNotFoundError:
    __version__ = "0+not.installed"  # a checkout on the path
