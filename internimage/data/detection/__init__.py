"""Pictures with boxes and masks: data sets, published augmentation, batches of one orientation."""

from internimage.data.detection.annotation import ObjectTargets as ObjectTargets
from internimage.data.detection.annotation import PictureAnnotation as PictureAnnotation
from internimage.data.detection.augment import TrainingView as TrainingView
from internimage.data.detection.augment import augment as augment
from internimage.data.detection.coco import open_coco as open_coco
from internimage.data.detection.dataset import DetectionDataset as DetectionDataset
from internimage.data.detection.grouping import class_balanced as class_balanced
from internimage.data.detection.grouping import endless_batches as endless_batches
from internimage.data.detection.grouping import epoch_batches as epoch_batches
from internimage.data.detection.grouping import orientations as orientations
from internimage.data.detection.grouping import repeat_factors as repeat_factors
from internimage.data.detection.loading import DrawnView as DrawnView
from internimage.data.detection.loading import TrainingViews as TrainingViews
from internimage.data.detection.loading import collate as collate
from internimage.data.detection.open import open_detection_dataset as open_detection_dataset
from internimage.data.detection.open_images import open_open_images as open_open_images
from internimage.data.detection.pipelines import PIPELINES as PIPELINES
from internimage.data.detection.pipelines import own_data_pipeline as own_data_pipeline
from internimage.data.detection.problems import Problem as Problem
from internimage.data.detection.voc import VOC_CLASSES as VOC_CLASSES
from internimage.data.detection.voc import open_voc as open_voc
from internimage.data.detection.voc import open_xml as open_xml
from internimage.data.detection.yolo import open_yolo as open_yolo
