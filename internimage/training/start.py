"""Start weights."""

from internimage.classification.model import Classifier
from internimage.training.config import ModelSettings


def load_start_weights(model: Classifier, settings: ModelSettings) -> None:
    """Load."""
