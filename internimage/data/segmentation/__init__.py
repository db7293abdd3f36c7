"""Segmentation data: files to (picture, label map) samples, their variations in training, and training batches."""

from internimage.data.class_list import ClassList as ClassList
from internimage.data.class_list import read_class_list as read_class_list
from internimage.data.segmentation.augment import PUBLISHED as PUBLISHED
from internimage.data.segmentation.augment import Augmentation as Augmentation
from internimage.data.segmentation.augment import Augmented as Augmented
from internimage.data.segmentation.batches import SegmentationBatch as SegmentationBatch
from internimage.data.segmentation.batches import SegmentationBatches as SegmentationBatches
from internimage.data.segmentation.batches import collate as collate
from internimage.data.segmentation.dataset import MaskedPicture as MaskedPicture
from internimage.data.segmentation.dataset import SegmentationDataset as SegmentationDataset
from internimage.data.segmentation.label_map import IGNORED as IGNORED
from internimage.data.segmentation.label_map import MaskValues as MaskValues
from internimage.data.segmentation.label_map import mapped_values as mapped_values
from internimage.data.segmentation.label_map import plain_values as plain_values
from internimage.data.segmentation.label_map import read_label_map as read_label_map
from internimage.data.segmentation.label_map import zero_is_nothing as zero_is_nothing
from internimage.data.segmentation.open import open_segmentation_dataset as open_segmentation_dataset
from internimage.data.segmentation.open import pair_folders as pair_folders
from internimage.data.segmentation.photometric import Photometric as Photometric
