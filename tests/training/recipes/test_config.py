from __future__ import annotations

import json

import pytest

from internimage.errors import UnknownName
from internimage.training import RECIPES, recipe

PICO = RECIPES["internimage_pico_fashion"]


def test_overrides_are_typed() -> None:
    changed = PICO.with_overrides(
        ["schedule.epochs=7", "optimizer.betas=0.8,0.95", "run.plot=no", "model.weights=none", "label_smoothing=0.2"]
    )
    assert changed.schedule.epochs == 7
    assert changed.optimizer.betas == (0.8, 0.95)
    assert changed.run.plot is False
    assert changed.model.weights is None
    assert changed.label_smoothing == 0.2
    assert PICO.schedule.epochs != 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule.epochs", "section.key=value"),
        ("schedule.epochs=many", "schedule.epochs must be a number of type int, given 'many'"),
        ("schedule.epochs=1.5", "type int"),
        ("schedule.epochs=0", "at least 1"),
        ("schedule.warmup_epochs=99", "must be smaller than schedule.epochs"),
        ("run.precision=fp8", "one of fp32, bf16"),
        ("run.plot=maybe", "true or false"),
        ("optimizer.betas=0.9", "needs 2 values"),
        ("augment.horizontal_flip=2", "in 0..1"),
        ("optimizer.lr_per_512=nan", "at least 0"),
        ("augment.rand_augment=rand-m9", "needs augment.kind=crop"),
    ],
)
def test_wrong_overrides(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PICO.with_overrides([text])


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        PICO.with_overrides(["schedule.epoch=3"])
    assert "schedule.epochs" in caught.value.suggestions


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        recipe("internimage_t_1k_225")
    assert "internimage_t_1k_224" in caught.value.suggestions


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_json_and_carry_their_name(name: str) -> None:
    assert RECIPES[name].name == name
    assert json.loads(json.dumps(RECIPES[name].to_dict()))["name"] == name


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_is_documented(name: str) -> None:
    assert all(RECIPES[name].meaning(key) for key in RECIPES[name].names())
