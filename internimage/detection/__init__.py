"""Detection: preprocess -> backbone -> neck -> proposals or queries -> heads -> postprocess."""

from internimage.detection.config import DINOConfig as DINOConfig
from internimage.detection.config import RCNNConfig as RCNNConfig
from internimage.detection.dino.model import DINO as DINO
from internimage.detection.model import Detector as Detector
from internimage.detection.preprocess import DetectionPreprocess as DetectionPreprocess
from internimage.detection.presets import DETECTORS as DETECTORS
from internimage.detection.presets import SMALL_DETECTORS as SMALL_DETECTORS
from internimage.detection.presets import build_detector as build_detector
from internimage.detection.rcnn.model import RCNN as RCNN
from internimage.moved import renamed

__getattr__ = renamed(__name__, {"PreprocessConfig": "internimage.detection.preprocess"})
