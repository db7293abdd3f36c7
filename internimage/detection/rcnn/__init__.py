"""The R-CNN family: proposals, then heads for each region."""

from internimage.moved import renamed

__getattr__ = renamed(__name__, {"RCNN": "internimage.detection.rcnn.model"})
