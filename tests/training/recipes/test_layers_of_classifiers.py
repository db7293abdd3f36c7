from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from internimage.backbones import variant
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.training.recipe import ClassificationRecipe
from internimage.classification.training.recipes import RECIPES
from internimage.hub.keys import from_official
from internimage.recipe import LayerRules
from internimage.training.optim import param_groups
from tests.training.building import build_model
from tests.training.conftest import recorded_json

RECORDED = recorded_json("classification_groups.json.gz")
CLASSES = {name: tuple(str(i) for i in range(entry["num_classes"])) for name, entry in RECORDED.items()}


def on_meta(recipe: ClassificationRecipe) -> Classifier:
    with torch.device("meta"):
        return build_model(recipe, CLASSES[recipe.name])


def rules(**settings: float) -> LayerRules:
    recipe = RECIPES["internimage_t_1k_224"]
    return replace(recipe, optimizer=replace(recipe.optimizer, **settings)).layer_rules()


@pytest.mark.parametrize("name", RECORDED)
def test_groups_equal_the_original(name: str) -> None:
    recipe, expected = RECIPES[name], RECORDED[name]
    model = on_meta(recipe)
    original = {
        parameter: [float(number) for number in key.split()]
        for key, parameters in expected["groups"].items()
        for parameter in parameters
    }
    ours = from_official(original, recipe.model.config.head)
    groups = param_groups(model, recipe.layer_rules(), depths=model.config.backbone.depths)
    given = {n: [g["lr_multiplier"], g["weight_decay"]] for g in groups for n in g["names"]}
    assert given.keys() == ours.keys() == dict(model.named_parameters()).keys()
    for parameter, (multiplier, decay) in given.items():
        assert multiplier == pytest.approx(ours[parameter][0], rel=1e-9), parameter
        assert decay == ours[parameter][1], parameter
    assert len(groups) == len(expected["groups"])
    assert sum(p.numel() for p in model.parameters()) == expected["parameters"]


@pytest.mark.parametrize("name", RECORDED)
def test_recipes_equal_the_original(name: str) -> None:
    recipe, expected = RECIPES[name], RECORDED[name]
    assert recipe.optimizer.lr_per_512 == expected["base_lr"]
    assert recipe.optimizer.weight_decay == expected["weight_decay"]
    assert recipe.optimizer.clip_norm == expected["clip_grad"]
    assert recipe.ema.decay == (expected["ema"][1] if expected["ema"][0] else 0.0)
    assert (recipe.optimizer.layer_decay != 1.0) == expected["layer_decay"][0]
    rates = [b.drop_path.p for level in on_meta(recipe).backbone.levels for b in level.blocks]
    assert rates[1:] == pytest.approx(list(expected["drop_path"].values()), rel=1e-6)
    assert rates[0] == 0.0


def test_every_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    model = Classifier(ClassifierConfig(variant("internimage_pico"), 10), frozen_stages=1)
    groups = param_groups(model, rules(layer_decay=0.5), depths=(2, 2, 5, 1))
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    assert not any(name.startswith(("backbone.patch_embed", "backbone.levels.0")) for name in names)
    assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("head.classifier.weight", 0),
        ("backbone.levels.3.norm.weight", 0),
        ("backbone.levels.2.post_norms.1.weight", 0),
        ("backbone.levels.3.blocks.0.mlp.fc1.weight", 0),
        ("backbone.levels.2.downsample.conv.weight", 0),
        ("backbone.levels.2.blocks.4.mlp.fc1.weight", 1),
        ("backbone.levels.1.norm.bias", 5),
        ("backbone.levels.0.blocks.0.norm1.weight", 9),
        ("backbone.patch_embed.conv1.weight", 9),
    ],
)
def test_layer_decay_counts_blocks_from_the_top(name: str, power: int) -> None:
    assert rules(layer_decay=0.5).lr_multiplier(name, (2, 2, 5, 1)) == 0.5**power


def test_operator_multiplier_spares_the_weights() -> None:
    block = "backbone.levels.3.blocks.0.dcn"
    for layer, expected in (("offset", 0.1), ("center_feature_scale_proj", 0.1), ("mask", 1.0), ("input_proj", 1.0)):
        slowed = rules(layer_decay=0.9, dcn_lr_multiplier=0.1)
        assert slowed.lr_multiplier(f"{block}.{layer}.weight", (1, 1, 1, 1)) == expected
    assert rules(dcn_lr_multiplier=0.1).lr_multiplier(f"{block}.offset.weight", (1, 1, 1, 1)) == 1.0
