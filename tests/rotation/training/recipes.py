"""The recipes of this task."""

from __future__ import annotations

from internimage.backbones import variant
from internimage.recipe import EmaSettings, ModelSettings, RunSettings
from tests.rotation.model import RotationConfig
from tests.rotation.training.recipe import RotationRecipe

RECIPES = {
    "rotation_internimage_pico": RotationRecipe(
        name="rotation_internimage_pico",
        model=ModelSettings(RotationConfig(variant("internimage_pico"))),
        ema=EmaSettings(decay=0.0),
        run=RunSettings(tensorboard=False, plot=False),
    )
}
