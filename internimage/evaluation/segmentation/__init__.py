"""Numbers of segmentors: intersection over union, accuracy, the worst pictures, files for test servers."""

from internimage.evaluation.segmentation.confusion import PixelConfusion as PixelConfusion
from internimage.evaluation.segmentation.measure import evaluate_segmentation as evaluate_segmentation
from internimage.evaluation.segmentation.report import PictureScore as PictureScore
from internimage.evaluation.segmentation.report import SegmentationReport as SegmentationReport
from internimage.evaluation.segmentation.report import published_miou as published_miou
from internimage.evaluation.segmentation.submission import save_submission as save_submission
from internimage.evaluation.segmentation.test_time import PUBLISHED_RATIOS as PUBLISHED_RATIOS
from internimage.evaluation.segmentation.test_time import MultiScale as MultiScale
from internimage.evaluation.segmentation.test_time import predict_multi_scale as predict_multi_scale
from internimage.evaluation.segmentation.test_time import published_scales as published_scales
from internimage.evaluation.segmentation.worst import save_worst as save_worst
