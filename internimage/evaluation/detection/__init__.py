"""Figures of detectors: COCO, LVIS, VOC, OpenImages, CrowdHuman; several looks at a picture."""

from internimage.evaluation.detection.measure import evaluate_detection as evaluate_detection
from internimage.evaluation.detection.report import DetectionReport as DetectionReport
from internimage.evaluation.detection.report import published_figures as published_figures
from internimage.evaluation.detection.test_time import MultiScale as MultiScale
from internimage.evaluation.detection.test_time import predict_multi_scale as predict_multi_scale
from internimage.evaluation.detection.test_time import usual_scales as usual_scales
