"""DINO: queries that a transformer turns into objects."""

from internimage.moved import renamed

__getattr__ = renamed(__name__, {"DINO": "internimage.detection.dino.model"})
