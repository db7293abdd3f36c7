from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch

from internimage.detection import DINO, RCNN
from internimage.errors import UnknownName
from internimage.hub.keys import from_official
from internimage.recipe import LayerRules
from internimage.segmentation import Segmentor
from internimage.training import RECIPES
from internimage.training.optim import param_groups
from internimage.training.recipes import document, from_document
from tests.training.building import build_model, depths_of, multiplier
from tests.training.conftest import recorded_json

RECORDED: dict[str, Any] = recorded_json("dense_groups.json.gz")
DEPTHS = (2, 2, 5, 1)
# Classes of the data set by a part of the name of a configuration, where they are not those of COCO.
CLASSES = {"crowd_human": 1, "2ade20k": 150, "cocostuff": 171, "ade20k": 150, "cityscapes": 19, "mapillary": 19}
CLASSES |= {"pascal": 59, "nyu": 40, "lvis": 1203, "openimages": 601, "voc": 20}


@functools.cache
def model_of(name: str) -> RCNN | DINO | Segmentor:
    """Build the model of a recipe without memory; recipes whose groups were recorded as equal share one."""
    recipe = RECIPES[name]
    names = tuple(str(i) for i in range(next((k for part, k in CLASSES.items() if part in name), 80)))
    with torch.device("meta"):
        return build_model(recipe, names)


def rules_of(name: str, **settings: Any) -> LayerRules:
    """Return the rules of a recipe with an optimizer of its own."""
    recipe = RECIPES[name]
    return replace(recipe, optimizer=type(recipe.optimizer)(**settings)).layer_rules()


DINO_RUN, MASK_RUN = "dino_internimage_pico_closet", "mask2former_internimage_pico_closet"


@functools.cache
def expected_groups(name: str) -> dict[str, tuple[float, float]]:
    kind = model_of(name).config.kind
    pairs = {
        parameter: tuple(float(number) for number in key.split())
        for key, parameters in RECORDED[name]["groups"].items()
        for parameter in parameters
    }
    return from_official(pairs, kind)  # type: ignore[return-value]


@pytest.mark.parametrize("name", RECORDED)
def test_groups_equal_the_original(name: str) -> None:
    recipe, record = RECIPES[name], RECORDED[name]
    base = record["groups"].get("same_as", name)
    model, expected = model_of(base), expected_groups(base)
    groups = param_groups(model, recipe.layer_rules(), depths=depths_of(model))
    given = {n: (group["lr_multiplier"], group["weight_decay"]) for group in groups for n in group["names"]}
    assert given.keys() == expected.keys()
    differing = {
        parameter: (pair, expected[parameter])
        for parameter, pair in given.items()
        if abs(pair[0] / expected[parameter][0] - 1) > 1e-9 or pair[1] != expected[parameter][1]
    }
    assert not differing
    assert len(groups) == len(set(expected.values()))
    assert sum(p.numel() for p in model.parameters()) == RECORDED[base]["parameters"]


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("rpn.conv.weight", 0),
        ("backbone.levels.3.blocks.0.mlp.fc1.weight", 1),
        ("backbone.levels.3.norm.weight", 1),
        ("backbone.levels.2.downsample.conv.weight", 1),
        ("backbone.levels.2.blocks.4.mlp.fc1.weight", 2),
        ("backbone.levels.2.post_norms.1.weight", 5),
        ("backbone.levels.0.blocks.0.norm1.weight", 10),
        ("backbone.patch_embed.conv1.weight", 11),
        ("transformer.level_embedding", 11),
        ("backbone.backbones.1.levels.3.blocks.0.mlp.fc1.weight", 1),
        ("backbone.backbones.0.patch_embed.conv1.weight", 11),
        ("backbone.feed_scales.0", 0),
    ],
)
def test_layer_decay_counts_layers_from_the_head(name: str, power: int) -> None:
    assert multiplier(rules_of(DINO_RUN, layer_decay=0.5), name) == 0.5**power


def test_published_slips_are_settings() -> None:
    rules = rules_of(DINO_RUN, layer_decay=0.5, composite_layer_decay=False)
    assert multiplier(rules, "backbone.backbones.0.patch_embed.conv1.weight") == 1.0
    rules = rules_of(MASK_RUN, layer_decay=0.5, slow_mask_embeddings=True)
    assert multiplier(rules, "head.query_features") == 0.5**11
    assert multiplier(rules_of(MASK_RUN, layer_decay=0.5), "head.query_features") == 1.0


@pytest.mark.parametrize(("name", "former"), [(DINO_RUN, "slow_mask_embeddings"), (MASK_RUN, "composite_layer_decay")])
def test_settings_of_the_other_task_may_stand_in_older_files_only(name: str, former: str) -> None:
    content = document(RECIPES[name])
    content["optimizer"][former] = False
    assert from_document(content) == RECIPES[name]
    with pytest.raises(UnknownName):
        RECIPES[name].with_overrides([f"optimizer.{former}=false"])


@pytest.mark.parametrize(("head", "expected_multiplier"), [("upernet", 1.0), ("mask2former", 0.5**11)])
def test_slow_embeddings_are_those_of_mask2former_alone(head: str, expected_multiplier: float) -> None:
    recipe = RECIPES[f"{head}_internimage_pico_closet"].with_overrides(["slow_mask_embeddings=true", "layer_decay=0.5"])
    with torch.device("meta"):
        model = build_model(recipe, ("a", "b"))
    groups = param_groups(model, recipe.layer_rules(), depths=DEPTHS)
    [found] = [group["lr_multiplier"] for group in groups if "head.classifier.weight" in group["names"]]
    assert found == expected_multiplier


def test_offsets_of_attention_learn_by_their_own_factor_and_do_not_decay() -> None:
    rules = rules_of(DINO_RUN, layer_decay=0.5, offset_lr_multiplier=0.01)
    name = "transformer.encoder.0.attention.sampling_offsets.weight"
    assert multiplier(rules, name) == 0.01
    block = "backbone.levels.3.blocks.0.dcn"
    assert multiplier(rules, f"{block}.offset_mask.weight") == 0.005
    for layer in ("offset", "offset_mask_dw"):
        assert multiplier(rules, f"{block}.{layer}.weight") == 0.5
    with torch.device("meta"):
        model = build_model(RECIPES[DINO_RUN], ("a",))
    groups = param_groups(model, rules, depths=DEPTHS)
    assert {group["weight_decay"] for group in groups if name in group["names"]} == {0.0}


def test_the_backbone_rule_decays_everything() -> None:
    rules = rules_of("mask_rcnn_internimage_pico_closet", rule="backbone", backbone_lr_multiplier=0.25)
    recipe = RECIPES["mask_rcnn_internimage_pico_closet"].with_overrides(["frozen_stages=1"])
    with torch.device("meta"):
        model = build_model(recipe, ("a",))
    groups = param_groups(model, rules, depths=DEPTHS)
    assert {(group["lr_multiplier"], group["weight_decay"]) for group in groups} == {(0.25, 0.05), (1.0, 0.05)}
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert not any(name.startswith(("backbone.patch_embed", "backbone.levels.0")) for name in names)
