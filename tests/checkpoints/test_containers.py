"""Checkpoints of other people's training loops: wrappers, prefixes and averages in any nesting load as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from internimage.backbones import InternImage
from internimage.checkpoints.formats.containers import without_wrappers
from internimage.checkpoints.save import save_model
from internimage.classification import Classifier
from internimage.detection import RCNN, RCNNConfig
from internimage.hub.create import create
from internimage.hub.keys import original_state
from internimage.hub.load import load
from internimage.segmentation import SegFormerConfig, Segmentor, SegmentorConfig

Same = Callable[[nn.Module, nn.Module], None]
PREFIXES = (
    *("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.module."),
    *("module.module.", "model.model.", "_forward_module.model.", "self.classifier.net.", "backbone."),
)


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def shifted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other weights of the same model, such as its average."""
    return {key: value + 1 for key, value in state.items()}


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "original"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_any_nesting(
    tmp_path: Path, pico: Classifier, same_weights: Same, prefix: str, is_ours: bool
) -> None:
    state = pico.state_dict() if is_ours else original_state(pico)
    same_weights(load(saved(tmp_path / "w.pth", {"state_dict": below(prefix, state)})), pico)


@pytest.mark.parametrize("prefix", ["model.", "module._orig_mod.", "backbone."])
def test_prefixes_before_larger_models(tmp_path: Path, pico: Classifier, same_weights: Same, prefix: str) -> None:
    model = Segmentor(SegmentorConfig(pico.config.backbone, 3, head=SegFormerConfig(channels=32)))
    path = saved(tmp_path / "w.pth", {"state_dict": below(prefix, model.state_dict())})
    backbone = create("internimage_pico", weights=path, layer_scale=model.config.backbone.layer_scale)
    same_weights(backbone, model.backbone)


def test_prefixes_before_a_whole_detector(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    from internimage.checkpoints.header import to_json

    model = RCNN(RCNNConfig(pico.config.backbone, 3))
    content = {"meta": {"internimage": to_json(model.config)}, "state_dict": below("module.", original_state(model))}
    same_weights(load(saved(tmp_path / "w.pth", content)), model.eval())


def test_lightning_keeps_other_things_beside_the_model(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    state = below("model.", pico.state_dict()) | {"criterion.weight": torch.ones(4), "metric.total": torch.ones(())}
    content = {"state_dict": state, "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.5.0", "epoch": 3}
    same_weights(load(saved(tmp_path / "last.ckpt", content)), pico)


def test_a_backbone_in_somebody_elses_classifier(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    path = saved(
        tmp_path / "w.pth", {**below("backbone.", pico.backbone.state_dict()), "fc.weight": torch.ones(2, 192)}
    )
    backbone = create("internimage_pico", weights=path)
    assert isinstance(backbone, InternImage)
    same_weights(backbone.eval(), pico.backbone)
    with pytest.raises(ValueError, match=r"no classification head; take its backbone with create\('internimage_pico'"):
        load(path)


AVERAGES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Any]]] = {
    "the original's": lambda raw, mean: {"model": raw, "model_ema": mean},
    "timm's": lambda raw, mean: {"state_dict": raw, "state_dict_ema": below("module.", mean)},
    "our own": lambda raw, mean: {
        "format": 2,
        "model": raw,
        "ema": {"n_averaged": torch.tensor(3), **below("module.", mean)},
    },
    "nested": lambda raw, mean: {"model": {"state_dict": raw}, "ema": {"module": mean, "updates": 5}},
    "Lightning's": lambda raw, mean: {
        "state_dict": below("model.", raw)
        | below("ema_model.module.", mean)
        | {"ema_model.n_averaged": torch.tensor(3)}
    },
    "of a compiled model": lambda raw, mean: {
        "state_dict": below("_orig_mod.", raw),
        "ema": below("module._orig_mod.", mean),
    },
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_are_found_wherever_they_lie(
    tmp_path: Path, pico: Classifier, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = pico.state_dict()
    path = saved(tmp_path / "w.pth", AVERAGES[kind](raw, shifted(raw)))
    key = "head.classifier.weight"
    for ema in (None, False):
        assert torch.equal(load(path, ema=ema).state_dict()[key], raw[key])
    assert "averaged" not in caplog.text
    with caplog.at_level(logging.INFO, "internimage"):
        assert torch.equal(load(path, ema=True).state_dict()[key], raw[key] + 1)
    assert "taking the averaged weights in " in caplog.text


def test_an_average_alone_is_taken(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    path = saved(tmp_path / "w.pth", AveragedModel(pico).state_dict())
    same_weights(load(path), pico)
    same_weights(load(path, ema=True), pico)
    with pytest.raises(ValueError, match=r"w\.pth holds averaged weights only"):
        load(path, ema=False)


def test_several_models_in_one_file_are_named(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    state = pico.state_dict()
    path = saved(tmp_path / "w.pth", {"state_dict": below("student.", state) | below("teacher.", state)})
    with pytest.raises(ValueError, match=r"several models: 'state_dict: student\.', 'state_dict: teacher\.'"):
        load(path)
    same_weights(load(saved(path, {"model": state, "best_model": shifted(state)})), pico)


def test_a_foreign_file_is_answered_with_its_names(tmp_path: Path) -> None:
    state = {f"layer{i}.conv.weight": torch.ones(2, 2) for i in range(9)}
    path = saved(tmp_path / "resnet.pth", {"state_dict": below("module.", state)})
    with pytest.raises(ValueError, match=r"resnet\.pth is no InternImage checkpoint .*module\., _orig_mod\.") as caught:
        load(path)
    assert "layer0.conv.weight, layer1.conv.weight" in str(caught.value) and "and 5 more" in str(caught.value)


def test_two_entries_of_one_name_are_refused(tmp_path: Path, pico: Classifier) -> None:
    state = pico.state_dict()
    path = saved(tmp_path / "w.pth", {**state, "module.head.norm.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"w\.pth: two entries .* 'head\.norm\.weight'"):
        load(path)


def test_wrapped_models_are_saved_as_what_is_inside(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    for wrapped in (
        torch.compile(pico),
        nn.DataParallel(pico),
        AveragedModel(pico),
        nn.DataParallel(torch.compile(pico)),
    ):
        same_weights(load(save_model(wrapped, tmp_path / "w.safetensors")), pico)
    inner = Classifier(pico.config)
    inner.load_state_dict(pico.state_dict())
    inner.backbone = torch.compile(inner.backbone)  # type: ignore[assignment]  # a module that stands for another
    same_weights(load(save_model(inner, tmp_path / "w.safetensors")), pico)
    with pytest.raises(TypeError, match="given Linear"):
        save_model(nn.DataParallel(nn.Linear(2, 2)), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("key", "bare"),
    [
        ("module.levels.0.norm.weight", "levels.0.norm.weight"),
        ("backbone._orig_mod.levels.0.norm.weight", "backbone.levels.0.norm.weight"),
        ("cb_modules.0.levels.0.norm.weight", "cb_modules.0.levels.0.norm.weight"),
    ],
)
def test_wrappers_are_cut_at_any_place(key: str, bare: str) -> None:
    assert without_wrappers(key) == bare
