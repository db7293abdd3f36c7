"""Metrics: how good predictions are, given the ground truth; no model in it."""

from internimage.moved import renamed

__getattr__ = renamed(
    __name__,
    {
        "ClassificationReport": "internimage.classification.report",
        "DetectionReport": "internimage.detection.report",
        "SegmentationReport": "internimage.segmentation.report",
        "evaluate": "internimage.classification.evaluate",
        "evaluate_detection": "internimage.detection.evaluate",
        "evaluate_segmentation": "internimage.segmentation.evaluate",
    },
)
