"""InternImage for PyTorch: build, load, run, train and convert deformable-convolution vision models."""

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
from internimage.zoo import save_model as save

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
    "save",
]
