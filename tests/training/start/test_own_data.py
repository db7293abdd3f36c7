"""What a run changes in its recipe when the data is smaller or other than the recipe's."""

from __future__ import annotations

import logging
import re

import pytest
import torch

from internimage.checkpoints.catalog import info, list_models
from internimage.errors import UnknownName
from internimage.training import RECIPES, recipe
from internimage.training.device import has_bf16_instructions, with_precision
from internimage.training.own_data import (
    as_started,
    is_made_for,
    with_batch,
    with_holdout,
    with_short_warmup,
    with_start,
)
from internimage.training.recipes import Advice, advice_for, published_checkpoint
from internimage.training.state import flat_settings

FRUIT = ("apple", "pear")


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "internimage.training")


@pytest.mark.parametrize(
    ("name", "key", "chosen", "total", "expected"),
    [
        ("upernet_internimage_pico_closet", "schedule.warmup_iterations", None, 30, 3),
        ("upernet_internimage_pico_closet", "schedule.warmup_iterations", None, 1999, 199),
        ("upernet_internimage_pico_closet", "schedule.warmup_iterations", None, 2000, 200),
        ("upernet_internimage_pico_closet", "schedule.warmup_iterations", 25, 30, 25),
        ("mask_rcnn_internimage_t_fpn_1x_coco", "schedule.warmup_iterations", None, 300, 30),
        ("internimage_t_1k_224", "schedule.warmup_epochs", None, 300, 3),  # 30 steps of 10 an epoch
        ("internimage_t_1k_224", "schedule.warmup_epochs", 9, 300, 9),
        ("internimage_pico_fashion", "schedule.warmup_epochs", None, 10, 0.1),  # 1 step of 10 an epoch
    ],
)
def test_the_warmup_is_bounded_by_the_run(
    name: str, key: str, chosen: int | None, total: int, expected: float, caplog: pytest.LogCaptureFixture
) -> None:
    given = recipe(name).with_overrides([] if chosen is None else [f"{key}={chosen}"])
    suited = with_short_warmup(given, total_steps=total, steps_per_epoch=10)
    assert flat_settings(suited)[key] == expected
    assert (key in caplog.text) == (flat_settings(given)[key] != expected)
    assert with_short_warmup(suited, total_steps=total, steps_per_epoch=10) == suited


# Training images of the data sets that the published runs were made on, by a part of the recipe's name.
IMAGES = {
    "ade20k": 20210,
    "mapillary2cityscapes": 2975,
    "mapillary": 18000,
    "cityscapes": 2975,
    "to_10k": 9000,
    "cocostuff164k": 118287,
    "pascal_context": 4996,
    "nyu": 795,
    "openimages": 1743042,
    "crowd_human": 15000,
    "lvis": 100170,
    "voc": 16551,
    "coco": 117266,
    "inat18": 437513,
    "closet_crops": 56150,
    "closet": 2000,
    "fashion": 58000,
}


@pytest.mark.parametrize("name", RECIPES)
def test_published_runs_keep_their_warmup_and_average(name: str) -> None:
    images = next((count for part, count in IMAGES.items() if part in name), 1281167)
    given = recipe(name)
    settings = flat_settings(given)
    steps = images // settings["data.batch_size"]
    total = settings["schedule.epochs"] * steps or settings["schedule.iterations"]
    assert with_short_warmup(given, total_steps=total, steps_per_epoch=steps) == given
    assert with_batch(given, images) == given


def test_a_long_average_of_a_short_run_follows_the_weights(caplog: pytest.LogCaptureFixture) -> None:
    classifier, cascade = recipe("internimage_t_1k_224"), recipe("cascade_internimage_l_fpn_3x_coco")
    assert with_short_warmup(classifier, total_steps=90, steps_per_epoch=3).ema.warmup
    assert "ema.warmup" in caplog.text
    assert not with_short_warmup(cascade, total_steps=90, steps_per_epoch=3).ema.warmup  # it follows by itself
    kept = classifier.with_overrides(["ema.warmup=false"])
    assert not with_short_warmup(kept, total_steps=90, steps_per_epoch=3).ema.warmup


def test_every_checkpoint_says_how_to_train_on_from_it() -> None:
    without = {
        name
        for name in list_models()
        if info(name).is_built and not name.startswith("hf:") and advice_for(name) is None and name not in RECIPES
    }
    assert without == {
        "dino_4scale_cbinternimage_g_objects365_coco",  # not published
        "dino_4scale_cbinternimage_h_objects365_80classes",  # what other runs start from
        "dino_4scale_cbinternimage_h_objects365_20classes",
    }
    assert recipe("mask_rcnn_flash_internimage_t_fpn_1x_coco").name == "mask_rcnn_flash_intern_image_t_fpn_1x_coco"
    with pytest.raises(UnknownName, match=r"train internimage_t_1k_224 --set model.backbone=flash_internimage_t"):
        recipe("flash_intern_image_t_1k_224")


@pytest.mark.parametrize("name", [name for name in list_models() if (advice_for(name) or Advice("")).settings])
def test_advice_is_a_recipe_that_builds_the_model(name: str) -> None:
    advice = advice_for(name)
    assert advice is not None
    chosen = recipe(advice.recipe).with_overrides(advice.settings)
    assert (chosen.model.weights, chosen.value("model.backbone")) == (name, info(name).backbone)


def test_own_data_fine_tunes_the_published_model(caplog: pytest.LogCaptureFixture) -> None:
    suited = with_start(recipe("mask_rcnn_internimage_t_fpn_1x_coco"), FRUIT, 100_000)
    settings = flat_settings(suited)
    assert settings["model.weights"] == "mask_rcnn_internimage_t_fpn_1x_coco"
    assert settings["model.backbone_weights"] is None and settings["schedule.epochs"] == 12
    assert re.search(r"fine-tunes .*mask_rcnn_internimage_t_fpn_1x_coco.*model\.start=recipe", caplog.text)
    assert with_start(suited, FRUIT, 100_000) == suited
    classifier = with_start(recipe("internimage_t_1k_224"), FRUIT, 100)
    assert flat_settings(classifier)["schedule.epochs"] == 30
    segmentor = flat_settings(with_start(recipe("upernet_internimage_t_512_160k_ade20k"), FRUIT, 100))
    assert [segmentor[f"schedule.{key}"] for key in ("iterations", "epochs", "validate_every")] == [0, 30, 3]
    detector = with_start(recipe("mask_rcnn_internimage_t_fpn_3x_coco"), FRUIT, 100)
    assert [flat_settings(detector)[f"schedule.{key}"] for key in ("epochs", "steps")] == [12, [9, 11]]
    long = with_start(recipe("internimage_t_1k_224").with_overrides(["schedule.epochs=90"]), FRUIT, 100)
    assert flat_settings(long)["schedule.epochs"] == 90


def test_the_data_of_a_recipe_gets_its_own_run() -> None:
    given = recipe("internimage_pico_fashion")
    entry = published_checkpoint("internimage_pico_fashion")
    names = None if entry is None else entry.class_names
    assert names is not None and len(names) == 10
    assert is_made_for(given, names, 60_000) and is_made_for(given, names[::-1], 60_000)
    assert not is_made_for(given, names, 1999) and not is_made_for(given, names[:9], 60_000)
    assert not is_made_for(given, tuple("abcdefghij"), 60_000)
    assert flat_settings(with_start(given, names, 60_000))["model.weights"] is None
    assert flat_settings(with_start(given, names, 1999))["model.weights"] == "internimage_pico_fashion"
    asked = given.with_overrides(["model.start=published"])
    assert flat_settings(with_start(asked, names, 60_000))["model.weights"] == "internimage_pico_fashion"


@pytest.mark.parametrize(
    "override",
    ["model.start=recipe", "model.weights=none", "model.weights=own.pth", "model.backbone=internimage_b"],
)
def test_a_choice_of_the_user_decides_the_start(override: str) -> None:
    given = recipe("internimage_t_1k_224").with_overrides([override])
    suited = with_start(given, FRUIT, 40)
    assert flat_settings(suited)["model.weights"] == ("own.pth" if "own" in override else None)
    assert flat_settings(suited)["schedule.epochs"] == (30 if "own" in override else 300)


def test_what_is_not_published_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match=r"dino_internimage_pico_closet is published.*model\.weights"):
        with_start(recipe("dino_internimage_pico_closet").with_overrides(["model.start=published"]), FRUIT, 40)


@pytest.mark.parametrize(
    ("name", "images", "has_val", "expected"),
    [
        ("internimage_pico_fashion", 48, True, 0),
        ("internimage_pico_fashion", 48, False, 10),
        ("internimage_pico_fashion", 60_000, False, 2000),
        ("internimage_t_1k_224", 48, True, 0),
        ("internimage_t_1k_224", 48, False, 10),
        ("upernet_internimage_pico_closet", 2, False, 1),
    ],
)
def test_the_holdout_suits_the_data(name: str, images: int, has_val: bool, expected: int) -> None:
    suited = with_holdout(recipe(name), FRUIT, images, has_val=has_val)
    assert flat_settings(suited)["data.holdout"] == expected
    assert with_holdout(suited, FRUIT, images, has_val=has_val) == suited


def test_a_chosen_holdout_stays_or_is_refused_by_its_name() -> None:
    chosen = recipe("internimage_pico_fashion").with_overrides(["data.holdout=40"])
    assert with_holdout(chosen, FRUIT, 48, has_val=True) == chosen
    with pytest.raises(ValueError, match=r"data\.holdout must be smaller than the 30 training images, given 40"):
        with_holdout(chosen, FRUIT, 30, has_val=True)
    with pytest.raises(ValueError, match=r"no validation part.*data\.holdout"):
        with_holdout(recipe("internimage_pico_fashion"), FRUIT, 1, has_val=False)


@pytest.mark.parametrize(
    ("name", "images", "size"),
    [
        ("internimage_pico_fashion", 48, 8),
        ("internimage_pico_fashion", 511, 64),
        ("internimage_pico_fashion", 512, 128),
        ("mask_rcnn_internimage_pico_closet", 40, 8),
        ("mask_rcnn_internimage_pico_closet", 3, 2),
        ("upernet_internimage_pico_closet", 1, 1),
        ("mask_rcnn_internimage_t_fpn_1x_coco", 3, 2),
    ],
)
def test_a_batch_is_a_part_of_the_data(name: str, images: int, size: int) -> None:
    assert flat_settings(with_batch(recipe(name), images))["data.batch_size"] == size


def test_a_chosen_batch_stays() -> None:
    chosen = recipe("internimage_pico_fashion").with_overrides(["data.batch_size=64"])
    assert with_batch(chosen, 10) == chosen
    several = with_batch(recipe("internimage_pico_fashion").with_overrides(["accumulation_steps=4"]), 100)
    assert (several.optimizer.accumulation_steps, flat_settings(several)["data.batch_size"]) == (4, 16)


def test_the_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    given, cpu = recipe("internimage_pico_fashion"), torch.device("cpu")
    assert given.run.precision == "auto"
    for is_fast, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("internimage.training.device.has_bf16_instructions", lambda _, fast=is_fast: fast)
        assert with_precision(given, cpu).run.precision == expected
        assert f"trains in {expected}" in caplog.text
    obeyed = with_precision(given.with_overrides(["run.precision=bf16"]), cpu)
    assert obeyed.run.precision == "bf16" and "run.precision=bf16 is slow here" in caplog.text


def test_bf16_needs_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert has_bf16_instructions(cpu)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not has_bf16_instructions(cpu)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert has_bf16_instructions(cpu)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_bf16_instructions(cpu)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not has_bf16_instructions(cpu)
    assert not has_bf16_instructions(torch.device("mps"))


def test_a_run_goes_on_as_it_was_suited() -> None:
    given = recipe("internimage_pico_fashion")
    started = with_batch(with_start(given, FRUIT, 48), 48).with_values({"run.precision": "fp32"})
    saved, kept = flat_settings(started), as_started(given, started)
    assert {key: saved[key] for key in ("model.weights", "data.batch_size", "run.precision")} == {
        "model.weights": "internimage_pico_fashion",
        "data.batch_size": 8,
        "run.precision": "fp32",
    }
    assert flat_settings(kept) == saved
    assert with_start(kept, FRUIT, 48).explicit == kept.explicit and flat_settings(with_batch(kept, 9)) == saved
    # of an older release, which did not decide the start
    assert flat_settings(with_start(as_started(given, given), FRUIT, 48))["model.weights"] is None
    chosen = given.with_overrides(["data.batch_size=4"])
    assert flat_settings(as_started(chosen, started))["data.batch_size"] == 4  # which the run then refuses
