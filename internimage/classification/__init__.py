"""Classification: preprocess -> backbone -> head -> postprocess."""

from internimage.classification.model import Classifier as Classifier
from internimage.classification.model import ClassifierConfig as ClassifierConfig
from internimage.classification.preprocess import ClassificationPreprocess as ClassificationPreprocess
from internimage.classification.preprocess import Observation as Observation
from internimage.moved import renamed

__getattr__ = renamed(__name__, {"PreprocessConfig": "internimage.classification.preprocess"})
