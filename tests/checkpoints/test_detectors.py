"""Detectors by name and by file: original settings, names and files, catalog rows, create, load and save."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import internimage as ii
from internimage import tasks
from internimage.backbones import CompositeInternImage, variant
from internimage.checkpoints.catalog import catalog
from internimage.checkpoints.header import from_json, to_json
from internimage.classification import Classifier
from internimage.detection import DETECTORS, DINO, RCNN, DetectionPreprocess, DINOConfig, RCNNConfig, build_detector
from internimage.detection.original.settings import detector_from_settings
from internimage.detection.published import published_config
from internimage.errors import CheckpointMismatch
from internimage.hub.keys import from_official, to_official

PARITY = Path(__file__).parents[1] / "parity" / "data"
KEYS = sorted((PARITY / "keys").glob("*detection__*.json.gz"))
ROWS = [entry for entry in catalog().values() if entry.task == "detection" and entry.source != "bundled"]
FOUND = {"shorter_side": 64, "longer_side": 96}


def record(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def on_meta(config: RCNNConfig | DINOConfig) -> RCNN | DINO:
    with torch.device("meta"):
        return build_detector(config)


def spelling(name: str) -> str:
    return name.replace("intern_image", "internimage").removesuffix("_ss")


@pytest.mark.parametrize("path", KEYS, ids=lambda path: path.name.split(".")[0])
def test_every_published_config_builds_with_its_keys_shapes_and_parameters(path: Path) -> None:
    recorded = record(path)
    config = detector_from_settings(recorded["model"], test_pipeline=recorded["test_pipeline"])
    model = on_meta(config)
    state = {key: list(value.shape) for key, value in to_official(model.state_dict(), config.kind).items()}
    assert state == recorded["shapes"]
    assert sum(p.numel() for p in model.parameters()) == recorded["parameters"]


def test_rows_are_what_their_configs_say() -> None:
    recorded = {spelling(path.name.split("__")[-1].split(".json")[0]): path for path in KEYS}
    compared = 0
    for entry in ROWS:
        name = {"dino_4scale_internimage_t_1x_coco": "dino_4scale_internimage_t_1x_coco_layer_wise_lr"}.get(entry.name)
        path = recorded.get(name or spelling(entry.name))
        if path is None:
            continue
        stated = record(path)
        theirs = detector_from_settings(stated["model"], test_pipeline=stated["test_pipeline"])
        ours = published_config(entry.name)
        backbone = replace(theirs.backbone, drop_path_rate=0.0)
        assert replace(ours, class_names=None) == replace(theirs, backbone=backbone), entry.name
        compared += 1
    assert compared >= 27


@pytest.mark.parametrize("entry", ROWS, ids=lambda entry: entry.name)
def test_every_row_has_names_and_preprocessing(entry: Any) -> None:
    assert entry.is_built
    config = published_config(entry.name)
    assert config.class_names is not None and len(config.class_names) == entry.num_classes
    assert config.preprocess.shorter_side in (800, 1000) and config.preprocess.divisor == 32


@pytest.mark.parametrize("name", [*sorted(DETECTORS), "sliced", "composite"])
def test_names_there_and_back(name: str) -> None:
    config = DETECTORS[{"sliced": "dino", "composite": "dino"}.get(name, name)](variant("internimage_pico"), 3)
    if name == "sliced":
        config = replace(config, feedforward_slices=4)
    if name == "composite":
        config = replace(config, num_backbones=2)
    state = {key: tuple(value.shape) for key, value in on_meta(config).state_dict().items()}
    assert tasks.known().own_kind(state) == config.kind
    official = to_official(state, config.kind)
    assert from_official(official, config.kind) == state and set(official) != set(state)


@pytest.mark.parametrize("case", ["mask_rcnn_reduced", "cascade_train_all", "dino_h_reduced", "cbdino_h_reduced"])
def test_documents_hold_everything(case: str) -> None:
    manifest = json.loads((PARITY / "cases" / case / "manifest.json").read_text())
    model = on_meta(detector_from_settings(manifest["config"]))
    assert from_json(to_json(model.config), "here", tasks.configs()) == (model.config, {})


@pytest.mark.parametrize("name", ["mask_rcnn", "dino"])
def test_save_and_load(
    name: str, tmp_path: Path, same_weights: Callable[[torch.nn.Module, torch.nn.Module], None]
) -> None:
    preprocess = DetectionPreprocess(**FOUND)
    model = ii.create(name, backbone="internimage_pico", class_names=["a", "b"], preprocess=preprocess)
    loaded = ii.load(ii.save_model(model, tmp_path / "model.safetensors"))
    assert loaded.config == model.config and not loaded.training
    same_weights(loaded, model)
    assert loaded.predict([torch.zeros(3, 40, 50, dtype=torch.uint8)])[0].class_names == ("a", "b")
    more = ii.load(tmp_path / "model.safetensors", num_classes=5)
    assert more.config.num_classes == 5 and more.config.class_names is None


def original_file(path: Path, config: RCNNConfig | DINOConfig, **extra: Any) -> RCNN | DINO:
    """A file as the original training writes it: weights, averaged copies beside them, and its configuration."""
    model = build_detector(config)
    state = to_official(model.state_dict(), config.kind)
    copies = {"ema_" + key.replace(".", "_"): value + 1 for key, value in state.items()}
    torch.save({"state_dict": {**state, **copies}, **extra}, path)
    return model


def test_original_files_with_averaged_copies_and_stated_settings(
    tmp_path: Path, same_weights: Callable[[torch.nn.Module, torch.nn.Module], None]
) -> None:
    manifest = json.loads((PARITY / "cases" / "mask_rcnn_reduced" / "manifest.json").read_text())
    config = detector_from_settings(manifest["config"])
    names = [f"class {i}" for i in range(80)]
    text = f"model = {manifest['config']['model']!r}\nlr_config = dict(step=[8, 11])\n"
    path = tmp_path / "trained.pth"
    model = original_file(path, config, meta={"CLASSES": tuple(names), "config": text, "epoch": 12})
    loaded = ii.load(path)
    assert loaded.config == replace(config, class_names=tuple(names))
    same_weights(loaded, model)
    averaged = ii.load(path, ema=True)
    torch.testing.assert_close(averaged.rpn.logits.bias, model.rpn.logits.bias + 1)  # type: ignore[union-attr]
    original_file(tmp_path / "silent.pth", config)
    with pytest.raises(ValueError, match="does not state its settings"):
        ii.load(tmp_path / "silent.pth")
    assert ii.load(tmp_path / "silent.pth", settings=manifest["config"]).config == config


def test_missing_and_foreign_entries_are_listed(tmp_path: Path) -> None:
    manifest = json.loads((PARITY / "cases" / "mask_rcnn_reduced" / "manifest.json").read_text())
    config = detector_from_settings(manifest["config"])
    state = to_official(build_detector(config).state_dict(), config.kind)
    state["roi_head.extra.weight"] = state.pop("rpn_head.rpn_cls.bias")
    torch.save({"state_dict": state}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointMismatch) as caught:
        ii.load(tmp_path / "odd.pth", settings=manifest["config"])
    assert caught.value.missing == ("rpn.logits.bias",) and caught.value.unexpected == ("roi_head.extra.weight",)


def test_a_backbone_comes_from_a_classifier_and_a_detector_gives_one(tmp_path: Path) -> None:
    classifier = ii.create("classifier", backbone="internimage_pico", num_classes=3)
    path = ii.save_model(classifier, tmp_path / "classifier.safetensors")
    detector = ii.create("mask_rcnn", backbone="internimage_pico", num_classes=2, weights=path)
    assert isinstance(detector, RCNN) and isinstance(classifier, Classifier)
    assert torch.equal(detector.backbone.patch_embed.conv1.weight, classifier.backbone.patch_embed.conv1.weight)
    assert detector.training
    again = ii.create("internimage_pico", weights=ii.save_model(detector, tmp_path / "detector.safetensors"))
    assert torch.equal(again.patch_embed.conv1.weight, classifier.backbone.patch_embed.conv1.weight)  # type: ignore[union-attr]


def test_another_number_of_classes_keeps_the_rest(tmp_path: Path) -> None:
    first = ii.create("cascade_rcnn", backbone="internimage_pico", num_classes=3)
    path = ii.save_model(first, tmp_path / "first.safetensors")
    second = ii.create("cascade_rcnn", num_classes=5, weights=path)
    assert isinstance(first, RCNN) and isinstance(second, RCNN)
    assert second.box_heads[1].classifier.weight.shape[0] == 6  # type: ignore[union-attr]
    # One regression serves all classes here, so it stays.
    assert torch.equal(second.box_heads[1].regressor.weight, first.box_heads[1].regressor.weight)  # type: ignore[union-attr]
    assert torch.equal(second.rpn.conv.weight, first.rpn.conv.weight)


def test_create_says_what_it_needs(tmp_path: Path) -> None:
    composite = ii.create("dino", backbone="cb_internimage_pico", num_classes=2)
    assert isinstance(composite, DINO) and isinstance(composite.backbone, CompositeInternImage)
    path = ii.save_model(ii.create("mask_rcnn", backbone="internimage_pico", num_classes=2), tmp_path / "m.safetensors")
    for arguments, error, text in (
        (dict(backbone="internimage_pico"), ValueError, "its classes"),
        (dict(num_classes=2), ValueError, "needs a backbone"),
        (dict(backbone="cb_internimage_pico", num_classes=2), ValueError, "composite"),
        (dict(backbone="internimage_pico", num_classes=2, head="conv"), ValueError, "no head"),
        (dict(backbone="internimage_pico", num_classes=2, preprocess=3), TypeError, "DetectionPreprocess"),
        (dict(backbone="internimage_pico", num_classes=2, out_indices=(1,)), ValueError, "out_indices"),
    ):
        with pytest.raises(error, match=text):
            ii.create("mask_rcnn", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another detector"):
        ii.create("cascade_rcnn", weights=path)
    with pytest.raises(ValueError, match="nearest names are"):
        ii.create("mask_rcn")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m["neck"].update(type="PAFPN"), "neck.type"),
        (lambda m: m["roi_head"]["bbox_head"].update(type="DoubleHead"), "bbox_head.type"),
        (lambda m: m["rpn_head"]["anchor_generator"].update(center_offset=0.5), "center_offset"),
        (lambda m: m["roi_head"]["bbox_roi_extractor"]["roi_layer"].update(sampling_ratio=2), "sampling_ratio"),
        (lambda m: m.update(type="RetinaNet"), "model.type"),
        (lambda m: m.pop("rpn_head"), "rpn_head"),
    ],
)
def test_settings_that_are_not_supported_are_refused(change: Callable[[dict[str, Any]], Any], text: str) -> None:
    manifest = json.loads((PARITY / "cases" / "mask_rcnn_reduced" / "manifest.json").read_text())
    change(manifest["config"]["model"])
    with pytest.raises(ValueError, match=text):
        detector_from_settings(manifest["config"])
