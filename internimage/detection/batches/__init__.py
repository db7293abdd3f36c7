"""Training batches of detectors: published augmentation, images of one orientation together."""

from internimage.detection.batches.augment import TrainingView as TrainingView
from internimage.detection.batches.augment import augment as augment
from internimage.detection.batches.grouping import class_balanced as class_balanced
from internimage.detection.batches.grouping import endless_batches as endless_batches
from internimage.detection.batches.grouping import epoch_batches as epoch_batches
from internimage.detection.batches.grouping import orientations as orientations
from internimage.detection.batches.grouping import repeat_factors as repeat_factors
from internimage.detection.batches.loading import DrawnView as DrawnView
from internimage.detection.batches.loading import TrainingViews as TrainingViews
from internimage.detection.batches.loading import collate as collate
from internimage.detection.batches.pipelines import PIPELINES as PIPELINES
from internimage.detection.batches.pipelines import own_data_pipeline as own_data_pipeline
