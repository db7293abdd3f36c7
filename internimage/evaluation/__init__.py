"""Numbers: how good a model is on a data set."""

from internimage.evaluation.classification import ClassificationReport as ClassificationReport
from internimage.evaluation.classification import evaluate as evaluate
