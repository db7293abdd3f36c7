from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.backbones import BackboneConfig, InternImage, variant
from internimage.checkpoints.catalog import _index, info
from internimage.checkpoints.save import save_model
from internimage.classification import ClassificationPreprocess, Classifier
from internimage.errors import CheckpointMismatch, UnknownName
from internimage.hub.convert import convert
from internimage.hub.create import create
from internimage.hub.keys import original_state
from internimage.hub.load import load

Same = Callable[[torch.nn.Module, torch.nn.Module], None]
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def pico_file(tmp_path: Path, pico: Classifier) -> Path:
    return save_model(pico, tmp_path / "pico.safetensors")


@pytest.fixture
def pico_pth(tmp_path: Path, pico: Classifier) -> Path:
    torch.save({"model": original_state(pico)}, tmp_path / "pico.pth")
    return tmp_path / "pico.pth"


def test_fresh_backbones_and_classifiers() -> None:
    backbone = create("internimage_pico", out_indices=(1, 3), drop_path_rate=0.2, in_chans=1, layer_scale=0.5)
    assert isinstance(backbone, InternImage) and backbone.training
    assert backbone.out_indices == (1, 3)
    wanted = dict(drop_path_rate=0.2, in_chans=1, layer_scale=0.5)
    assert backbone.config == dataclasses.replace(variant("internimage_pico"), **wanted)
    model = create(
        "classifier", backbone="internimage_pico", num_classes=3, preprocess=ClassificationPreprocess(size=64)
    )
    assert isinstance(model, Classifier)
    assert (model.config.num_classes, model.config.head, model.config.preprocess.size) == (3, "conv", 64)
    custom = BackboneConfig(8, (1, 1, 1, 1), (1, 1, 1, 1))
    named = create("classifier", backbone=custom, class_names=["x", "y"])
    assert isinstance(named, Classifier) and named.config.class_names == ("x", "y")


def test_head_follows_the_size() -> None:
    with torch.device("meta"):
        model = create("classifier", backbone="internimage_h")
        other = create("classifier", backbone="internimage_h", head="attention_pool_metadata", num_classes=9)
    assert isinstance(model, Classifier) and model.config.head == "attention_pool" and model.config.num_classes == 1000
    assert isinstance(other, Classifier) and other.takes_metadata


@pytest.mark.parametrize("source", ["pico_file", "pico_pth"])
def test_backbone_of_a_classifier(
    source: str, request: pytest.FixtureRequest, pico: Classifier, same_weights: Same
) -> None:
    backbone = create("internimage_pico", weights=request.getfixturevalue(source), frozen_stages=1, out_indices=(3,))
    assert isinstance(backbone, InternImage) and backbone.training
    same_weights(backbone, pico.backbone)
    assert (
        not backbone.patch_embed.conv1.weight.requires_grad and backbone.levels[1].blocks[0].norm1.weight.requires_grad
    )


def test_backbone_of_a_detector(tmp_path: Path, same_weights: Same) -> None:
    expected = InternImage(dataclasses.replace(variant("internimage_pico"), layer_scale=1.0))
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.normal_()
    from internimage.hub.keys import to_official

    state = {f"backbone.{key}": value for key, value in to_official(expected.state_dict(), None).items()}
    others = {"neck.fpn_convs.0.conv.weight": torch.ones(1), "rpn_head.rpn_cls.bias": torch.ones(1)}
    copies = {f"ema_{key.replace('.', '_')}": value for key, value in state.items()}
    path = tmp_path / "detector.pth"
    torch.save({"state_dict": {**state, **others, **copies}, "meta": {"CLASSES": ("cat",)}}, path)
    backbone = create("internimage_pico", weights=path)
    same_weights(backbone, expected)
    with pytest.raises(ValueError, match="a detector that does not state its settings"):
        load(path)
    del state["backbone.levels.0.norm.0.bias"]
    torch.save({"state_dict": {**state, **others}}, path)
    with pytest.raises(CheckpointMismatch, match=r"levels\.0\.norm\.bias"):
        create("internimage_pico", weights=path)


def test_scales_start_afresh_on_weights_without_them(pico_pth: Path, pico: Classifier) -> None:
    backbone = create("internimage_pico", weights=pico_pth, layer_scale=1.0)
    assert isinstance(backbone, InternImage)
    assert torch.equal(backbone.levels[0].blocks[0].gamma1, torch.ones(backbone.config.channels))
    assert torch.equal(backbone.patch_embed.conv1.weight, pico.backbone.patch_embed.conv1.weight)


def test_scales_are_not_dropped_silently(small: Classifier, small_file: Path) -> None:
    config = dataclasses.replace(small.config.backbone, layer_scale=None)
    with pytest.raises(CheckpointMismatch, match="give layer_scale"):
        create("classifier", backbone=config, weights=small_file)


def test_classifier_on_the_weights_of_another(pico_file: Path, pico: Classifier, same_weights: Same) -> None:
    kept = create("classifier", weights=pico_file, drop_path_rate=0.3)
    same_weights(kept, pico)
    assert isinstance(kept, Classifier) and kept.training
    assert kept.config.class_names == NAMES and kept.config.backbone.drop_path_rate == 0.3
    tuned = create("classifier", backbone="internimage_pico", weights=pico_file, class_names=["x", "y"])
    assert isinstance(tuned, Classifier) and tuned.config.class_names == ("x", "y")
    same_weights(tuned.backbone, pico.backbone)
    assert tuned.head.classifier.weight.shape[0] == 2
    renamed = create("classifier", weights=pico_file, class_names=["p", "q", "r", "s"])
    assert isinstance(renamed, Classifier) and renamed.config.class_names == ("p", "q", "r", "s")
    same_weights(renamed, pico)


def test_fresh_start_with_a_removed_center(pico_file: Path) -> None:
    config = dataclasses.replace(variant("internimage_pico"), remove_center=True)
    model = create("classifier", backbone=config, weights=pico_file)
    assert isinstance(model, Classifier)
    assert model.backbone.levels[0].blocks[0].dcn.mask.out_features == 8 * config.groups[0]


def test_weights_of_another_backbone_are_refused(pico_file: Path) -> None:
    with pytest.raises(ValueError, match=r"internimage_t.*channels: 64 asked"):
        create("internimage_t", weights=pico_file)
    wider = dataclasses.replace(variant("internimage_pico"), offset_scale=2.0)
    with pytest.raises(ValueError, match="offset_scale: 2"):
        create("classifier", backbone=wider, weights=pico_file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(architecture="internimage_pico", num_classes=3), "takes no num_classes"),
        (dict(architecture="internimage_pico", backbone="internimage_t"), "takes no backbone"),
        (dict(architecture="classifier"), "needs a backbone"),
        (dict(architecture="classifier", backbone="internimage_pico", out_indices=(3,)), "takes no out_indices"),
        (dict(architecture="classifier", backbone="internimage_pico", num_classes=3, class_names=["a"]), "3 names"),
        (dict(architecture="classifier", backbone="internimage_pico", num_classes=0), "at least 1"),
        (dict(architecture="classifier", backbone="internimage_pico", drop_path_rate=1.0), "drop_path_rate"),
        (dict(architecture="internimage_pico", weights="bevformer_base_occ"), "resnet101_dcn"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        create(**arguments)


def test_unknown_names_suggest() -> None:
    with pytest.raises(UnknownName, match="internimage_t"):
        create("internimage")
    with pytest.raises(UnknownName, match="internimage_xl"):
        create("classifier", backbone="internimage_xxl")
    with pytest.raises(UnknownName, match="internimage_b_1k_224"):
        load("internimage_b_1k_22")
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        load("folder/missing.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openlanev2_internimage-s", "lane topology"),
    ],
)
def test_models_of_later_releases_say_so_before_any_download(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name)


def test_a_file_named_like_a_row_is_that_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(info("internimage_t_1k_224"), backbone="internimage_pico")  # small, to be quick
    monkeypatch.setitem(_index(), row.name, row)
    monkeypatch.chdir(tmp_path)
    model = create("classifier", backbone="internimage_pico")
    assert isinstance(model, Classifier)
    torch.save({"model": original_state(model)}, "internimage_t_1k_224.pth")
    loaded = load("internimage_t_1k_224.pth")
    assert isinstance(loaded, Classifier) and loaded.config.preprocess.size == 224
    assert loaded.config.class_names is not None and loaded.config.class_names[281] == "tabby"
    tuned = create("classifier", weights="internimage_t_1k_224.pth", num_classes=3)
    assert isinstance(tuned, Classifier)
    torch.save({"model": original_state(tuned)}, "internimage_t_1k_224.pth")
    assert load("internimage_t_1k_224.pth").config.num_classes == 3  # fine-tuned, under the old name


@pytest.mark.parametrize("route", [(".pth",), ("",), ("", ".pth"), (".pth", ""), (".safetensors", "", ".pth")])
def test_conversions_lose_nothing(tmp_path: Path, pico: Classifier, same_weights: Same, route: tuple[str, ...]) -> None:
    first = path = save_model(pico, tmp_path / "start.safetensors")
    for step, suffix in enumerate(route):
        path = convert(path, tmp_path / f"step{step}{suffix}")
        model = load(path)
        assert isinstance(model, Classifier) and model.config == pico.config
        same_weights(model, pico)
    assert convert(path, tmp_path / "end.safetensors").read_bytes() == first.read_bytes()


def test_conversion_of_an_original_file_and_back(
    tmp_path: Path, small_file: Path, small_state: dict[str, Tensor]
) -> None:
    ours = convert(small_file, tmp_path / "ours.safetensors")
    back = torch.load(convert(ours, tmp_path / "back.pth"), weights_only=True)["model"]
    folder = convert(small_file, tmp_path / "folder")
    again = torch.load(convert(folder, tmp_path / "again.pth"), weights_only=True)["model"]
    for state in (back, again):
        assert set(state) == set(small_state)
        assert all(torch.equal(state[key], value) for key, value in small_state.items())


def test_flash_classifiers_convert(tmp_path: Path, same_weights: Same) -> None:
    config = BackboneConfig(16, (1, 1, 1, 1), (1, 1, 2, 4), operator="dcnv4", output_bias=False, offset_scale=0.5)
    model = create("classifier", backbone=config, class_names=["a", "b"])
    path = save_model(model, tmp_path / "start.safetensors")
    for name in ("a.pth", "folder", "b.pth"):
        path = convert(path, tmp_path / name)
        loaded = load(path)
        same_weights(loaded, model)
        assert isinstance(loaded, Classifier) and loaded.config == model.config


def test_metadata_classifiers_convert_to_the_original_layout(tmp_path: Path, same_weights: Same) -> None:
    config = BackboneConfig(16, (1, 1, 1, 1), (1, 2, 4, 8), center_feature_scale=True)
    model = create("classifier", backbone=config, num_classes=3, head="attention_pool_metadata")
    assert isinstance(model, Classifier)
    path = convert(save_model(model, tmp_path / "a.safetensors"), tmp_path / "a.pth")
    loaded = load(path)
    same_weights(loaded, model)
    assert isinstance(loaded, Classifier) and loaded.config == model.config
    with pytest.raises(ValueError, match="metadata head"):
        convert(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_conversion_refuses_what_it_cannot_do(tmp_path: Path, pico_file: Path) -> None:
    with pytest.raises(ValueError, match=r"\.onnx"):
        convert(pico_file, tmp_path / "model.onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        convert(pico_file, tmp_path / "full")
    backbone = save_model(create("internimage_pico"), tmp_path / "backbone.safetensors")
    with pytest.raises(ValueError, match="bare backbone"):
        convert(backbone, tmp_path / "backbone.pth")
    assert {p.name for p in tmp_path.iterdir()} == {"pico.safetensors", "full", "backbone.safetensors"}


def test_a_folder_is_replaced_whole(tmp_path: Path, pico_file: Path) -> None:
    first = convert(pico_file, tmp_path / "folder")
    convert(pico_file, first, dtype=torch.float16)
    assert load(first, dtype=None).dtype == torch.float16
    assert {p.name for p in first.iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
