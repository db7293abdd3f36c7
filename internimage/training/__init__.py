"""Training: recipes and the loop that runs them."""

from internimage.training.recipes import RECIPES as RECIPES
from internimage.training.recipes import recipe as recipe
from internimage.training.result import TrainingResult as TrainingResult
from internimage.training.settings import Recipe as Recipe
from internimage.training.trainer import Trainer as Trainer
from internimage.training.trainer import train as train
