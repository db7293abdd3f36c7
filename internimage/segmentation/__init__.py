"""Semantic segmentation: preprocess -> backbone -> head -> postprocess."""

from internimage.moved import renamed
from internimage.segmentation.config import HEADS as HEADS
from internimage.segmentation.config import Mask2FormerConfig as Mask2FormerConfig
from internimage.segmentation.config import SegFormerConfig as SegFormerConfig
from internimage.segmentation.config import SegmentorConfig as SegmentorConfig
from internimage.segmentation.config import UperNetConfig as UperNetConfig
from internimage.segmentation.model import Segmentor as Segmentor
from internimage.segmentation.preprocess import SegmentationPreprocess as SegmentationPreprocess
from internimage.segmentation.preprocess import SlidingWindow as SlidingWindow

__getattr__ = renamed(__name__, {"PreprocessConfig": "internimage.segmentation.preprocess"})
