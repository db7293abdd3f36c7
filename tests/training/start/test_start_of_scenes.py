from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.checkpoints.save import save_model
from internimage.detection import DINO, RCNN, RCNNConfig
from internimage.errors import CheckpointMismatch, UnknownName
from internimage.hub.create import create
from internimage.hub.load import load
from internimage.segmentation import Segmentor
from internimage.settings import replaced, setting
from internimage.training import recipe
from tests.training.building import build_model, start

BUNDLED = "internimage_pico_fashion"


def fresh(head: str, classes: int | Sequence[str], *overrides: str) -> RCNN | DINO | Segmentor:
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
    return build_model(recipe(f"{head}_internimage_pico_closet").with_overrides(overrides), names)


def backbone_state(model: Any) -> dict[str, Tensor]:
    return dict(model.backbone.state_dict())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A detector and a segmentor of four classes each."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    return {
        head: save_model(fresh(head, 4), folder / f"{head}.safetensors")
        for head in ("mask_rcnn", "dino", "mask2former")
    }


@pytest.mark.parametrize("head", ["mask_rcnn", "upernet"])
def test_a_backbone_comes_from_a_classifier(head: str) -> None:
    model = fresh(head, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    start(model, backbone_weights=BUNDLED)
    source = backbone_state(load(BUNDLED))
    for key, value in model.state_dict().items():
        expected = source[key.removeprefix("backbone.")] if key.startswith("backbone.") else before[key]
        assert torch.equal(value, expected), key


def test_a_backbone_comes_from_a_segmentor(saved: dict[str, Path]) -> None:
    model = fresh("mask_rcnn", 3)
    start(model, backbone_weights=str(saved["mask2former"]))
    source = backbone_state(load(saved["mask2former"]))
    assert all(torch.equal(value, source[key]) for key, value in backbone_state(model).items())


def test_branch_scales_that_a_classifier_lacks_start_at_one() -> None:
    chosen = recipe("mask_rcnn_internimage_pico_closet")
    chosen = replaced(chosen, {"model.config.backbone.layer_scale": 1.0})
    model = build_model(chosen, ("a", "b", "c"))
    start(model, backbone_weights=BUNDLED)
    scales = [value for key, value in backbone_state(model).items() if ".gamma" in key]
    assert len(scales) == 20 and all(bool((value == 1).all()) for value in scales)


def test_both_backbones_of_a_composite_start_from_one() -> None:
    model = fresh("dino", 3, "model.backbone=cb_internimage_pico")
    start(model, backbone_weights=BUNDLED)
    source, state = backbone_state(load(BUNDLED)), backbone_state(model)
    for i in (0, 1):
        taken = {key for key in source if f"backbones.{i}.{key}" in state}
        assert (len(taken) == len(source)) == (i == 0)  # the second one has no stem
        assert all(torch.equal(source[key], state[f"backbones.{i}.{key}"]) for key in taken)


@pytest.mark.parametrize("head", ["mask_rcnn", "dino", "mask2former"])
def test_a_whole_model_is_taken_over(head: str, saved: dict[str, Path]) -> None:
    model = fresh(head, 4)
    start(model, weights=str(saved[head]))
    source = load(saved[head]).state_dict()
    assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("head", ["mask_rcnn", "dino", "mask2former"])
@pytest.mark.parametrize("classes", [4, 7])
def test_new_last_layers_are_asked_for(head: str, classes: int, saved: dict[str, Path]) -> None:
    model = fresh(head, classes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if classes == 7:
        nameless: Any = fresh(head, classes)
        nameless.config = replace(nameless.config, class_names=None)
        with pytest.raises(ValueError, match=r"has 4 classes but the data set has 7; set model\.reset_head=true"):
            start(nameless, weights=str(saved[head]))
    start(model, weights=str(saved[head]), reset_head=True)
    source = load(saved[head]).state_dict()
    for key, value in model.state_dict().items():
        # The box regression of this Mask R-CNN serves all classes: for others it is taken over.
        is_shared = classes == 7 and key.startswith("box_heads.0.regressor.")
        assert torch.equal(value, before[key] if model.class_layers.match(key) and not is_shared else source[key]), key


FRUIT = ("apple", "pear", "plum", "fig")


@pytest.mark.parametrize("head", ["mask_rcnn", "dino", "upernet", "mask2former"])
@pytest.mark.parametrize(
    ("names", "rows", "said"),
    [
        (("plum", "Apple", "fig", "pear"), (2, 0, 3, 1), ""),
        (("quince", "fig", "plum"), (-1, 3, 2), "knows 2 of the 3 classes: .* those of 'quince' start afresh"),
        (("a", "b", "c", "d"), (-1, -1, -1, -1), "knows none of the classes 'a', 'b', 'c', 'd': .* start afresh"),
    ],
)
def test_last_layers_follow_the_names(
    head: str,
    names: tuple[str, ...],
    rows: tuple[int, ...],
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, model = fresh(head, FRUIT), fresh(head, names)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    start(model, weights=str(save_model(source, tmp_path / "fruit.safetensors")))
    given = source.state_dict()
    for key, value in model.state_dict().items():
        if (
            not model.class_layers.match(key) or ".regressor." in key
        ):  # this Mask R-CNN has one regression for all classes
            assert torch.equal(value, given[key]), key
            continue
        for row, place in enumerate(rows):
            assert torch.equal(value[row], before[key][row] if place < 0 else given[key][place]), key
        for extra in range(len(value) - len(rows)):  # the background, or no object
            assert torch.equal(value[len(rows) + extra], given[key][len(FRUIT) + extra]), key
    text = "\n".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert re.search(said, text) if said else not text


@pytest.mark.parametrize("head", ["mask_rcnn", "upernet"])
def test_created_models_follow_the_names(head: str, tmp_path: Path) -> None:
    """`create` renames classes, but never gives the rows of a class to another one that the weights know."""
    source = fresh(head, FRUIT)
    path, given = save_model(source, tmp_path / "fruit.safetensors"), source.state_dict()
    kind = "mask_rcnn" if head == "mask_rcnn" else "upernet"
    moved: Any = create(kind, weights=path, class_names=("plum", "Apple", "fig", "pear"))
    renamed: Any = create(kind, weights=path, class_names=("Apfel", "pear", "Pflaume", "Feige"))
    for key, value in moved.state_dict().items():
        is_moved = source.class_layers.match(key) and ".regressor." not in key
        rows = [2, 0, 3, 1, *range(4, len(value))] if is_moved else slice(None)
        assert torch.equal(value, given[key][rows] if value.ndim else given[key]), key
        assert torch.equal(renamed.state_dict()[key], given[key])
    with pytest.raises(ValueError, match=r"'plum' at another place than the weights, which do not know 'Feige'"):
        create(kind, weights=path, class_names=("plum", "pear", "apple", "Feige"))


def test_boxes_of_each_class_follow_the_names(tmp_path: Path) -> None:
    config = replace(fresh("mask_rcnn", FRUIT).config, class_names=FRUIT)
    assert isinstance(config, RCNNConfig)
    stages = tuple(replace(stage, class_agnostic=False) for stage in config.stages)
    source = RCNN(replace(config, stages=stages))
    model = RCNN(replace(config, stages=stages, num_classes=2, class_names=("fig", "quince")))
    before = model.box_heads[0].regressor.weight.detach().clone()
    start(model, weights=str(save_model(source, tmp_path / "fruit.safetensors")))
    after = model.box_heads[0].regressor.weight.detach()
    assert torch.equal(after[:4], source.box_heads[0].regressor.weight[12:]) and torch.equal(after[4:], before[4:])


def test_other_models_are_refused(saved: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"is no model for detection; set .* model\.backbone_weights=") as caught:
        start(fresh("dino", 4), weights=str(saved["mask2former"]))
    assert "model.weights=none" in str(caught.value)
    with pytest.raises(CheckpointMismatch, match="must belong together"):
        start(fresh("dino", 4), weights=str(saved["mask_rcnn"]))
    with pytest.raises(UnknownName, match=BUNDLED):
        start(fresh("dino", 4), backbone_weights="internimage_pico_fashon")


def test_backbones_of_the_recipes() -> None:
    large, config = recipe("dino_4scale_cbinternimage_h_objects365_coco_ss"), "model.config.backbone"
    assert setting(large.with_overrides(["drop_path_rate=0.3"]), f"{config}.drop_path_rate") == 0.3
    assert setting(large, f"{config}.layer_scale") is None
    assert setting(large.with_overrides(["model.backbone=internimage_t"]), f"{config}.layer_scale") == 1.0
    assert setting(large.with_overrides(["through_dcnv4=true"]), f"{config}.operator") == "dcnv3_through_dcnv4"
    with pytest.raises(ValueError, match="flash_internimage_t has another one"):
        large.with_overrides(["model.backbone=flash_internimage_t", "through_dcnv4=true"])
