"""Semantic segmentation: preprocess -> backbone -> head -> postprocess."""

from internimage.moved import renamed
from internimage.segmentation.mask2former.network import Mask2FormerConfig as Mask2FormerConfig
from internimage.segmentation.model import Segmentor as Segmentor
from internimage.segmentation.model import SegmentorConfig as SegmentorConfig
from internimage.segmentation.preprocess import SegmentationPreprocess as SegmentationPreprocess
from internimage.segmentation.preprocess import SlidingWindow as SlidingWindow
from internimage.segmentation.presets import HEADS as HEADS
from internimage.segmentation.segformer import SegFormerConfig as SegFormerConfig
from internimage.segmentation.upernet import UperNetConfig as UperNetConfig

__getattr__ = renamed(__name__, {"PreprocessConfig": "internimage.segmentation.preprocess"})
