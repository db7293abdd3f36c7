"""InternImage for PyTorch: build, load, run, train and convert deformable-convolution vision models.

Names are imported at first use, so that the command line answers `--help` without loading torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internimage import ops as ops
    from internimage.errors import BackendUnavailable as BackendUnavailable
    from internimage.errors import CheckpointMismatch as CheckpointMismatch
    from internimage.errors import MissingExtra as MissingExtra
    from internimage.errors import UnknownName as UnknownName
    from internimage.types import Classification as Classification
    from internimage.types import Detections as Detections
    from internimage.types import Features as Features
    from internimage.types import Segmentation as Segmentation
    from internimage.visualize import draw as draw
    from internimage.zoo import convert as convert
    from internimage.zoo import create as create
    from internimage.zoo import info as info
    from internimage.zoo import list_models as list_models
    from internimage.zoo import load as load
    from internimage.zoo import save_model as save_model

# name: the module that holds it
_HOMES = {
    **dict.fromkeys(("BackendUnavailable", "CheckpointMismatch", "MissingExtra", "UnknownName"), "internimage.errors"),
    **dict.fromkeys(("Classification", "Detections", "Features", "Segmentation"), "internimage.types"),
    **dict.fromkeys(("convert", "create", "info", "list_models", "load", "save_model"), "internimage.zoo"),
    "draw": "internimage.visualize",
}

__all__ = [
    "BackendUnavailable",
    "CheckpointMismatch",
    "Classification",
    "Detections",
    "Features",
    "MissingExtra",
    "Segmentation",
    "UnknownName",
    "convert",
    "create",
    "draw",
    "info",
    "list_models",
    "load",
    "ops",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("internimage.ops")
    if name not in _HOMES:
        raise AttributeError(f"module 'internimage' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
