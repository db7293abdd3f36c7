"""Training batches of segmentors: variation, cropping, padding."""

from internimage.segmentation.batches.augment import PUBLISHED as PUBLISHED
from internimage.segmentation.batches.augment import Augmentation as Augmentation
from internimage.segmentation.batches.augment import Augmented as Augmented
from internimage.segmentation.batches.batches import SegmentationBatch as SegmentationBatch
from internimage.segmentation.batches.batches import SegmentationBatches as SegmentationBatches
from internimage.segmentation.batches.batches import collate as collate
from internimage.segmentation.batches.photometric import Photometric as Photometric
