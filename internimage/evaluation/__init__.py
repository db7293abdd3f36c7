"""Numbers: how good a model is on a data set."""

from internimage.evaluation.classification import ClassificationReport as ClassificationReport
from internimage.evaluation.classification import evaluate as evaluate
from internimage.evaluation.segmentation import SegmentationReport as SegmentationReport
from internimage.evaluation.segmentation import evaluate_segmentation as evaluate_segmentation
