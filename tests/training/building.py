"""Models and start weights as a run makes them, without its data."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from internimage.backbones import BackboneConfig
from internimage.recipe import LayerRules, ModelSettings, Recipe, SceneModelSettings
from internimage.training.initial_weights import load_start_weights
from internimage.training.setup import training_of


@dataclass(frozen=True)
class Named:
    """The classes of a data set."""

    class_names: tuple[str, ...]
    palette: Any = None


def build_model(recipe: Recipe, class_names: Sequence[str], palette: Any = None) -> Any:
    """Return the fresh model of a recipe for these classes."""
    return training_of(recipe).build(recipe, Named(tuple(class_names), palette))


def start(model: Any, **values: Any) -> None:
    """Give a model start weights; `values` are those of the section model."""
    kind = ModelSettings if model.task == "classification" else SceneModelSettings
    task = importlib.import_module(f"internimage.{model.task}.training.procedure").TRAINING
    load_start_weights(model, kind(model.config, **values), task)


def depths_of(model: Any) -> tuple[int, ...]:
    config: BackboneConfig = model.config.backbone
    return config.depths


def multiplier(rules: LayerRules, name: str) -> float:
    """Return the factor on the rate of a parameter under a backbone with blocks (2, 2, 5, 1)."""
    return rules.lr_multiplier(name, (2, 2, 5, 1))
