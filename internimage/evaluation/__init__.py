"""Numbers: how good a model is on a data set."""

from internimage.evaluation.classification import ClassificationReport as ClassificationReport
from internimage.evaluation.classification import evaluate as evaluate
from internimage.evaluation.detection import DetectionReport as DetectionReport
from internimage.evaluation.detection import evaluate_detection as evaluate_detection
from internimage.evaluation.segmentation import SegmentationReport as SegmentationReport
from internimage.evaluation.segmentation import evaluate_segmentation as evaluate_segmentation
