"""InternImage for PyTorch: build, load, run, train and convert deformable-convolution vision models.

Names are imported at first use, so that the command line answers `--help` without loading torch.
"""

from typing import TYPE_CHECKING

from internimage.lazy import lazy_exports
from internimage.moved import install

if TYPE_CHECKING:
    from internimage import ops as ops
    from internimage.checkpoints.catalog import info as info
    from internimage.checkpoints.catalog import list_models as list_models
    from internimage.checkpoints.save import save_model as save_model
    from internimage.errors import BackendUnavailable as BackendUnavailable
    from internimage.errors import CheckpointMismatch as CheckpointMismatch
    from internimage.errors import MissingExtra as MissingExtra
    from internimage.errors import UnknownName as UnknownName
    from internimage.exporting.write import export as export
    from internimage.hub.convert import convert as convert
    from internimage.hub.create import create as create
    from internimage.hub.evaluation import evaluate as evaluate
    from internimage.hub.features import features as features
    from internimage.hub.load import load as load
    from internimage.types import Classification as Classification
    from internimage.types import Detections as Detections
    from internimage.types import Features as Features
    from internimage.types import Segmentation as Segmentation
    from internimage.version import __version__ as __version__
    from internimage.visualize import draw as draw

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
    "evaluate",
    "export",
    "features",
    "info",
    "list_models",
    "load",
    "ops",
    "save_model",
]

install()

if not TYPE_CHECKING:  # a checker would take any name for one of this package
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            **dict.fromkeys(
                ("BackendUnavailable", "CheckpointMismatch", "MissingExtra", "UnknownName"), "internimage.errors"
            ),
            **dict.fromkeys(("Classification", "Detections", "Features", "Segmentation"), "internimage.types"),
            **dict.fromkeys(("info", "list_models"), "internimage.checkpoints.catalog"),
            "create": "internimage.hub.create",
            "load": "internimage.hub.load",
            "convert": "internimage.hub.convert",
            "draw": "internimage.visualize",
            "evaluate": "internimage.hub.evaluation",
            "export": "internimage.exporting.write",
            "features": "internimage.hub.features",
            "save_model": "internimage.checkpoints.save",
            "ops": "internimage.ops",
            "__version__": "internimage.version",
        },
    )
