from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from internimage.checkpoints.catalog import CatalogEntry, catalog, find
from internimage.data.labels import label_set
from internimage.detection import DINOConfig
from internimage.detection.published import published_config as published_detector
from internimage.errors import UnknownName
from internimage.recipe import SceneRecipe
from internimage.segmentation import SegmentorConfig
from internimage.segmentation.published import published_config as published_segmentor
from internimage.segmentation.training.recipe import SegmentationRecipe
from internimage.training import RECIPES
from internimage.training.recipes import published_metrics
from tests.training.conftest import recorded_json

RECORDED: dict[str, Any] = recorded_json("dense_groups.json.gz")
# Evaluated once in 100 epochs, of which there are 36.
UNMEASURED = "cascade_internimage_xl_fpn_3x_crowd_human"


def dense(name: str) -> SceneRecipe:
    recipe = RECIPES[name]
    assert isinstance(recipe, SceneRecipe)
    return recipe


def row_of(name: str) -> CatalogEntry | None:
    """Find the published checkpoint of a configuration; some files drop or change parts of the name."""
    spellings = (("", ""), ("flash_intern_image", "flash_internimage"), ("_layer_wise_lr", ""), ("_minival_ss", ""))
    spellings += (("_val_ss", ""), ("_nsmx", ""), ("_ss", ""), ("_ms", ""), ("voc07", "voc0712"), ("voc12", "voc0712"))
    return next((row for a, b in spellings if (row := catalog().get(name.replace(a, b))) is not None), None)


def test_every_published_configuration_is_a_recipe() -> None:
    tasks = {name: RECIPES[name].task for name in RECORDED}
    assert tasks == {name: record["task"] for name, record in RECORDED.items()}
    own = {n for n, r in RECIPES.items() if isinstance(r, SceneRecipe)} - RECORDED.keys()
    assert own == {f"{head}_internimage_pico_closet" for head in ("mask_rcnn", "dino", "upernet", "mask2former")}


@pytest.mark.parametrize("name", RECORDED)
def test_optimizer_equals_the_original(name: str) -> None:
    recipe, record = dense(name), RECORDED[name]
    settings, original = recipe.optimizer, record["optimizer"]
    paramwise = original.get("paramwise_cfg", {})
    assert (settings.name, settings.lr, settings.weight_decay) == ("adamw", original["lr"], original["weight_decay"])
    assert settings.betas == tuple(original.get("betas", (0.9, 0.999)))
    assert settings.layer_decay == paramwise.get("layer_decay_rate", 1.0)
    assert settings.clip_norm == (record["grad_clip"] or {"max_norm": 0.0})["max_norm"]
    assert (settings.rule == "layers") == ("constructor" in original)
    assert recipe.data.batch_size == record["samples_per_gpu"]
    averages = "ExpMomentumEMAHook" in record["hooks"]
    assert (recipe.ema.decay, recipe.ema.follow_steps) == ((0.9999, 2000) if averages else (0.0, 0))
    assert recipe.model.frozen_stages == -1 and not record["frozen"]


@pytest.mark.parametrize("name", RECORDED)
def test_schedule_equals_the_original(name: str) -> None:
    schedule, record = dense(name).schedule, RECORDED[name]
    original, runner = record["lr_config"], record["runner"]
    assert schedule.epochs == runner.get("max_epochs", 0)
    assert schedule.iterations == runner.get("max_iters", 0)
    assert schedule.kind == original["policy"]
    assert schedule.warmup_iterations == original["warmup_iters"]
    assert schedule.warmup_ratio == original["warmup_ratio"]
    assert schedule.steps == tuple(original.get("step", ()))
    if schedule.kind == "poly":
        assert (schedule.power, schedule.min_lr) == (original["power"], original["min_lr"])
    if name != UNMEASURED:
        assert schedule.validate_every == record["evaluation"].get("interval", 1)


@pytest.mark.parametrize("name", RECORDED)
def test_start_equals_the_original(name: str) -> None:
    settings, record = dense(name).model, RECORDED[name]
    assert settings.config.backbone.drop_path_rate == pytest.approx(record["drop_path"], rel=1e-6)
    start = settings.weights or settings.backbone_weights
    original = record["load_from"] or record["init_cfg"]
    if original is None:
        assert start is None
    else:
        row, own = find(original), find(start or "")
        assert row is not None and own is not None and row.name == own.name
    if settings.weights is not None:
        # Rows for other classes cannot be taken over; the last layers start afresh exactly then.
        row, target = find(settings.weights), row_of(name)
        assert row is not None and target is not None
        assert settings.reset_head == (row.num_classes != target.num_classes)


@pytest.mark.parametrize("name", [name for name in RECORDED if row_of(name) is not None])
def test_models_are_those_of_the_published_checkpoints(name: str) -> None:
    recipe, row = dense(name), row_of(name)
    assert row is not None and row.labels is not None
    labels, kept = label_set(row.labels), {}
    if isinstance(recipe.model.config, SegmentorConfig):
        kept, expected = {"palette": labels.palette}, published_segmentor(row.name)
    else:
        expected = published_detector(row.name)
    config: Any = replace(recipe.model.config, num_classes=len(labels), class_names=labels.class_names, **kept)
    if name.endswith("_nsmx"):
        assert not config.head.encoder_softmax
        config = replace(config, head=replace(config.head, encoder_softmax=True))
    assert isinstance(config, DINOConfig | SegmentorConfig | type(expected))
    assert replace(config, backbone=expected.backbone) == expected
    assert replace(config.backbone, drop_path_rate=0.0) == replace(expected.backbone, drop_path_rate=0.0)


@pytest.mark.parametrize("name", [name for name in RECORDED if row_of(name) is not None])
def test_published_metrics_are_those_of_the_catalog(name: str) -> None:
    row = row_of(name)
    assert row is not None
    keys = ("boxAP", "boxAP_val_ss", "mAP_ss", "VOC2012" if name.endswith("voc12") else "VOC2007", "mIoU_ss")
    keys = ("boxAP_minival_ss",) if "minival" in name else keys
    expected = next((row.metrics[key] for key in keys if key in row.metrics), None)
    found = published_metrics(name)
    assert found.get("miou", found.get("box_ap")) == (None if name.endswith("_nsmx") else expected)
    assert found.get("mask_ap", 0.0) == row.metrics.get("maskAP", 0.0)


def test_keys_may_leave_out_their_section() -> None:
    recipe = dense("mask_rcnn_internimage_t_fpn_1x_coco").with_overrides(["num_classes=3", "weights=none"])
    assert recipe.model.num_classes == 3
    with pytest.raises(UnknownName, match=r"longer_side"):
        recipe.with_overrides(["longer_side=500"])  # of the augmentation and of the preprocessing
    small = dense("upernet_internimage_pico_closet").with_overrides(["photometric=none", "crop_hw=96,64"])
    assert isinstance(small, SegmentationRecipe)
    assert small.augment.photometric is None and small.augment.crop_hw == (96, 64)
    with pytest.raises(ValueError, match=r"augment\.photometric can be switched off with none"):
        small.with_overrides(["augment.photometric=true"])


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("mask_rcnn_internimage_t_fpn_1x_coco", "data.batch_size=0", r"data\.batch_size must be at least 1"),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "model.architecture=mask_rnn", "mask_rcnn"),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "augment.pipeline=2x", "own"),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "model.weights=x;backbone_weights=y", "set one of them to none"),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "model.backbone=cb_internimage_t", "goes with DINO"),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "schedule.iterations=5", "the other one 0"),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "model.num_classes=0", r"model\.num_classes must be at least 1"),
        ("upernet_internimage_t_512_160k_ade20k", "model.architecture=uperent", "upernet"),
        ("upernet_internimage_t_512_160k_ade20k", "augment.crop_hw=none", r"data\.batch_size=1"),
    ],
)
def test_settings_that_no_run_can_use_are_refused(name: str, override: str, message: str) -> None:
    with pytest.raises((ValueError, UnknownName), match=message):
        dense(name).with_overrides(override.split(";"))


def test_one_kind_of_start_weights_replaces_the_other() -> None:
    chosen = dense("mask_rcnn_internimage_t_fpn_1x_coco").with_overrides(["model.weights=x"])
    assert (chosen.model.weights, chosen.model.backbone_weights) == ("x", None)
    back = chosen.with_overrides(["backbone_weights=y"])
    assert (back.model.weights, back.model.backbone_weights) == (None, "y")
    again = dense("mask_rcnn_internimage_t_fpn_1x_coco").with_overrides(["model.weights=none"])
    assert again.model.backbone_weights == "internimage_t_1k_224"


def test_steps_move_with_the_epochs() -> None:
    recipe = dense("mask_rcnn_internimage_t_fpn_1x_coco")
    assert recipe.with_overrides(["schedule.epochs=36"]).schedule.steps == (24, 33)
    assert recipe.with_overrides(["schedule.epochs=30", "schedule.steps=9"]).schedule.steps == (9,)
    assert recipe.with_overrides(["schedule.steps=9"]).with_overrides(["schedule.epochs=30"]).schedule.steps == (9,)
