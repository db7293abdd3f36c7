"""What every run states: model, data, optimizer, schedule, how it behaves; and what a task says about training."""

from internimage.recipe.layer_rules import LayerRules as LayerRules
from internimage.recipe.recipe import Choice as Choice
from internimage.recipe.recipe import Recipe as Recipe
from internimage.recipe.scenes import SceneDataSettings as SceneDataSettings
from internimage.recipe.scenes import SceneModelSettings as SceneModelSettings
from internimage.recipe.scenes import SceneOptimizerSettings as SceneOptimizerSettings
from internimage.recipe.scenes import SceneRecipe as SceneRecipe
from internimage.recipe.scenes import SceneScheduleSettings as SceneScheduleSettings
from internimage.recipe.scenes import starting_from as starting_from
from internimage.recipe.sections import DataSettings as DataSettings
from internimage.recipe.sections import EmaSettings as EmaSettings
from internimage.recipe.sections import Fraction as Fraction
from internimage.recipe.sections import FromOne as FromOne
from internimage.recipe.sections import FromZero as FromZero
from internimage.recipe.sections import ModelSettings as ModelSettings
from internimage.recipe.sections import OptimizerSettings as OptimizerSettings
from internimage.recipe.sections import ParallelSettings as ParallelSettings
from internimage.recipe.sections import RateFromZero as RateFromZero
from internimage.recipe.sections import RunSettings as RunSettings
