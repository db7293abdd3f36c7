"""Training: recipes and the loop that runs them."""

from internimage.recipe import Recipe as Recipe
from internimage.training.loop import Trainer as Trainer
from internimage.training.loop import train as train
from internimage.training.recipes import RECIPES as RECIPES
from internimage.training.recipes import recipe as recipe
from internimage.training.records import TrainingResult as TrainingResult
