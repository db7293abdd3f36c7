from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from internimage.detection import DINO, RCNN
from internimage.hub.keys import from_official
from internimage.segmentation import Segmentor
from internimage.training import RECIPES
from internimage.training.dense.param_groups import lr_multiplier, param_groups
from internimage.training.dense.settings import DenseOptimizerSettings
from internimage.training.detection.config import DetectionRecipe
from internimage.training.detection.task import build_model as build_detector
from internimage.training.segmentation.config import SegmentationRecipe
from internimage.training.segmentation.task import build_model as build_segmentor
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
        if isinstance(recipe, SegmentationRecipe):
            return build_segmentor(recipe, names)
        assert isinstance(recipe, DetectionRecipe)
        return build_detector(recipe, names)


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
    assert isinstance(recipe, DetectionRecipe | SegmentationRecipe)
    base = record["groups"].get("same_as", name)
    model, expected = model_of(base), expected_groups(base)
    groups = param_groups(model, recipe.optimizer, depths=model.config.backbone.depths)
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
    assert lr_multiplier(name, DEPTHS, DenseOptimizerSettings(layer_decay=0.5)) == 0.5**power


def test_published_slips_are_settings() -> None:
    settings = DenseOptimizerSettings(layer_decay=0.5, composite_layer_decay=False, slow_mask_embeddings=True)
    assert lr_multiplier("backbone.backbones.0.patch_embed.conv1.weight", DEPTHS, settings) == 1.0
    assert lr_multiplier("head.query_features", DEPTHS, settings) == 0.5**11
    assert lr_multiplier("head.query_features", DEPTHS, DenseOptimizerSettings(layer_decay=0.5)) == 1.0


@pytest.mark.parametrize(("head", "multiplier"), [("upernet", 1.0), ("mask2former", 0.5**11)])
def test_slow_embeddings_are_those_of_mask2former_alone(head: str, multiplier: float) -> None:
    recipe = RECIPES[f"{head}_internimage_pico_closet"].with_overrides(["slow_mask_embeddings=true", "layer_decay=0.5"])
    assert isinstance(recipe, SegmentationRecipe)
    with torch.device("meta"):
        model = build_segmentor(recipe, ("a", "b"))
    groups = param_groups(model, recipe.optimizer, depths=DEPTHS)
    [found] = [group["lr_multiplier"] for group in groups if "head.classifier.weight" in group["names"]]
    assert found == multiplier


def test_offsets_of_attention_learn_by_their_own_factor_and_do_not_decay() -> None:
    settings = DenseOptimizerSettings(layer_decay=0.5, offset_lr_multiplier=0.01)
    name = "transformer.encoder.0.attention.sampling_offsets.weight"
    assert lr_multiplier(name, DEPTHS, settings) == 0.01
    block = "backbone.levels.3.blocks.0.dcn"
    assert lr_multiplier(f"{block}.offset_mask.weight", DEPTHS, settings) == 0.005
    for layer in ("offset", "offset_mask_dw"):
        assert lr_multiplier(f"{block}.{layer}.weight", DEPTHS, settings) == 0.5
    recipe = RECIPES["dino_internimage_pico_closet"]
    assert isinstance(recipe, DetectionRecipe)
    with torch.device("meta"):
        model = build_detector(recipe, ("a",))
    groups = param_groups(model, settings, depths=DEPTHS)
    assert {group["weight_decay"] for group in groups if name in group["names"]} == {0.0}


def test_the_backbone_rule_decays_everything() -> None:
    settings = DenseOptimizerSettings(rule="backbone", backbone_lr_multiplier=0.25)
    recipe = RECIPES["mask_rcnn_internimage_pico_closet"].with_overrides(["frozen_stages=1"])
    assert isinstance(recipe, DetectionRecipe)
    with torch.device("meta"):
        model = build_detector(recipe, ("a",))
    groups = param_groups(model, settings, depths=DEPTHS)
    assert {(group["lr_multiplier"], group["weight_decay"]) for group in groups} == {(0.25, 0.05), (1.0, 0.05)}
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert not any(name.startswith(("backbone.patch_embed", "backbone.levels.0")) for name in names)
