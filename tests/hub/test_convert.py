"""From official files to ours and back, for every kind of model; nothing changes on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.checkpoints.formats.torch_files import load_torch_file
from internimage.checkpoints.save import save_model
from internimage.detection import DETECTORS, DINOConfig, build_detector
from internimage.flow import TaskModel
from internimage.hub.convert import convert
from internimage.hub.create import create
from internimage.hub.keys import to_official
from internimage.hub.load import load
from internimage.hub.opening import read_checkpoint
from internimage.segmentation import Mask2FormerConfig, SegFormerConfig, UperNetConfig
from tests.detection.conftest import NAMES, small_config

HEADS: dict[str, Any] = {
    "upernet": UperNetConfig(channels=8, auxiliary_channels=8),
    "segformer": SegFormerConfig(channels=8),
    "mask2former": Mask2FormerConfig(
        channels=64, num_queries=5, encoder_layers=1, encoder_hidden_channels=16, decoder_layers=1,
        decoder_hidden_channels=16,
    ),
}  # fmt: skip
KINDS = [*sorted(DETECTORS), "sliced_dino", "cb_dino", *HEADS]


def small_model(kind: str) -> TaskModel[Any]:
    if kind in HEADS:
        return create(kind, backbone="internimage_pico", class_names=list(NAMES), head=HEADS[kind])
    config = small_config("dino" if "dino" in kind else kind)
    if isinstance(config, DINOConfig):
        slices, backbones = 4 if kind == "sliced_dino" else 1, 2 if kind == "cb_dino" else 1
        config = replace(config, num_encoder_layers=1, num_decoder_layers=2)
        config = replace(config, feedforward_slices=slices, num_backbones=backbones)
    return build_detector(config)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    ours = save_model(model, tmp_path / "a.safetensors", info={"AP": 0.5})
    official = convert(ours, tmp_path / "b.pth")
    back = convert(official, tmp_path / "c.safetensors")
    for path in (official, back):
        loaded = load(path)
        assert loaded.config == model.config and type(loaded) is type(model)
        first, last = model.state_dict(), loaded.state_dict()
        assert first.keys() == last.keys()
        assert all(torch.equal(first[key], last[key]) for key in first)
    assert convert(back, tmp_path / "d.pth").stat().st_size == official.stat().st_size


@pytest.mark.parametrize("kind", ["mask_rcnn", "dino", "upernet"])
def test_the_official_container(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    content = load_torch_file(convert(save_model(model, tmp_path / "a.safetensors"), tmp_path / "b.pth"))
    assert list(content["meta"]["CLASSES"]) == list(NAMES)
    kind_of_head = model.config.head.kind if kind == "upernet" else model.config.kind  # type: ignore[union-attr]
    assert content["state_dict"].keys() == to_official(model.state_dict(), kind_of_head).keys()
    assert any(key.startswith(("bbox_head.", "roi_head.", "decode_head.")) for key in content["state_dict"])


def test_half_precision(tmp_path: Path) -> None:
    source = save_model(small_model("mask_rcnn"), tmp_path / "a.safetensors")
    half = convert(source, tmp_path / "b.pth", dtype=torch.float16)
    assert half.stat().st_size < 0.6 * source.stat().st_size
    assert load(half, dtype=None).dtype == torch.float16


def test_wrong_requests(tmp_path: Path) -> None:
    source = save_model(small_model("faster_rcnn"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="only classifiers are kept as folders"):
        convert(source, tmp_path / "folder")
    path = convert(source, tmp_path / "b.pth")
    content = load_torch_file(path)
    content["meta"]["internimage"] = '{"format_version": 99}'
    torch.save(content, tmp_path / "c.pth")  # not over the file that is mapped
    with pytest.raises(ValueError, match=r"c\.pth: cannot read the description"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "folder").exists()
