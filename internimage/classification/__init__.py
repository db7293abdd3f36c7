"""Classification: preprocess -> backbone -> head -> postprocess."""

from internimage.classification.model import Classifier as Classifier
from internimage.classification.model import ClassifierConfig as ClassifierConfig
from internimage.classification.preprocess import Observation as Observation
from internimage.classification.preprocess import PreprocessConfig as PreprocessConfig
