"""Foreign files: hostile descriptions, and sentences that name the file and steer no terminal."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from internimage.backbones import BackboneConfig, variant
from internimage.checkpoints.foreign import about
from internimage.checkpoints.save import save_model
from internimage.classification import Classifier, ClassifierConfig
from internimage.detection import DINOConfig, RCNNConfig
from internimage.detection.config import MaskHeadConfig
from internimage.errors import CheckpointMismatch
from internimage.flow import TaskConfig
from internimage.hub.convert import convert
from internimage.hub.create import create
from internimage.hub.keys import original_state
from internimage.hub.load import load
from internimage.segmentation import Mask2FormerConfig, SegFormerConfig, SegmentorConfig

PICO = variant("internimage_pico")
CONFIGS: dict[str, tuple[str, TaskConfig | BackboneConfig]] = {
    "backbone": ("backbone", PICO),
    "classifier": ("classification", ClassifierConfig(PICO, 3)),
    "mask_rcnn": ("rcnn_detection", RCNNConfig(PICO, 3, mask=MaskHeadConfig())),
    "dino": ("dino_detection", DINOConfig(PICO, 3)),
    "upernet": ("segmentation", SegmentorConfig(PICO, 3)),
    "segformer": ("segmentation", SegmentorConfig(PICO, 3, head=SegFormerConfig())),
    "mask2former": ("segmentation", SegmentorConfig(PICO, 3, head=Mask2FormerConfig())),
}


def described(path: Path, kind: str, changes: dict[str, Any]) -> Path:
    """Write a file of ours with one tensor and a description of which some fields, by dotted name, are changed."""
    task, config = CONFIGS[kind]
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    for name, value in changes.items():
        *outer, last = name.split(".")
        owner = plain
        for part in outer:
            owner = owner[int(part)] if part.isdigit() else owner[part]
        owner[last] = value
    text = json.dumps({"format_version": 1, "task": task, "config": plain, "info": {}})
    stem = "patch_embed.conv1.weight" if task == "backbone" else "backbone.patch_embed.conv1.weight"
    save_file({stem: torch.zeros(1)}, path, metadata={"internimage": text})
    return path


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("backbone", {"depths": [2, 2, 10**4, 1]}, "at most 256, given 10000"),
        ("backbone", {"depths": [256] * 4}, "1024 blocks and 0 layers in its head, but holds 1 tensors"),
        ("backbone", {"channels": 2**40}, "at most 4096, given 1099511627776"),
        ("backbone", {"channels": -24}, "channels must be at least 1, given -24"),
        ("backbone", {"depths": []}, "depths"),
        ("backbone", {"mlp_ratio": float("nan")}, "mlp_ratio must be finite"),
        ("backbone", {"kernel_size": 10**6}, "kernel_size must be at most 31"),
        ("classifier", {"num_classes": 2**40}, "num_classes must be at most 1000000"),
        ("classifier", {"conv_head_ratio": float("inf")}, "conv_head_ratio must be finite"),
        ("classifier", {"backbone.drop_path_rate": 1e400}, "drop_path_rate must be finite"),
        ("classifier", {"preprocess.size": 2**31}, "size must be at most 16384"),
        ("mask_rcnn", {"stages": []}, "at least one box stage"),
        ("mask_rcnn", {"rpn.strides": []}, "strides must have 1 to 8 entries, given 0"),
        ("mask_rcnn", {"rpn.ratios": [1.0] * 10**5}, "ratios must have 1 to 64 entries, given 100000"),
        ("mask_rcnn", {"stages.0.num_convs": 10**6}, "num_convs must be at most 64"),
        ("mask_rcnn", {"mask.channels": 0}, "channels must be at least 1"),
        ("mask_rcnn", {"last_stage_passes": 10**9}, "last_stage_passes must be at most 16"),
        ("dino", {"num_encoder_layers": 10**5}, "num_encoder_layers must be at most 64"),
        ("dino", {"num_queries": -1}, "num_queries must be at least 1"),
        ("dino", {"position_temperature": 0.0}, "position_temperature must be at least 0.001"),
        ("upernet", {"head.pool_scales": []}, "pool_scales must have 1 to 16 entries"),
        ("upernet", {"head.pool_scales": [10**9]}, "pool_scales must be at most 64"),
        ("upernet", {"classifier_rows": 2**40}, "classifier_rows must be at most 1000000"),
        ("segformer", {"head.channels": 2**40}, "channels must be at most 8192"),
        ("mask2former", {"head.decoder_layers": 10**6}, "decoder_layers must be at most 64"),
        ("mask2former", {"head.channels": 100}, "multiple of 32"),
        ("mask2former", {"head.channels": "\x1b[2J" * 10_000}, r"must be int, given '\\x1b\[2J"),
    ],
)
def test_hostile_descriptions_are_refused_at_once(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    path = described(tmp_path / "odd.safetensors", kind, changes)
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and text.isprintable() and len(text) < 1000
    assert time.process_time() - start < 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_description_without_its_tensors_builds_nothing(tmp_path: Path, kind: str) -> None:
    path = described(tmp_path / "odd.safetensors", kind, {})
    with pytest.raises(ValueError, match=r"odd\.safetensors: .* blocks and .* tensors, too few for it"):
        load(path)


def test_a_hostile_backbone_is_refused_before_a_model_is_built_on_it(tmp_path: Path) -> None:
    changes = {"channels": 4096, "groups": [64, 64, 64, 64], "depths": [256, 256, 256, 256]}
    path = described(tmp_path / "odd.safetensors", "backbone", changes)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"odd\.safetensors"):
        create("classifier", weights=path, num_classes=3)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2**40}, "channels must be at most 4096"),
        ({"depths": [1, 1, 10**6, 1]}, "depths must be at most 256"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must be finite"),
        ({"num_classes": -5}, "num_classes must be at least 1"),
        ({"mlp_ratio": 10**400}, "mlp_ratio must be at most|no sense|mlp_ratio"),
        ({"groups": "\x1b" * 10**5}, "groups must be four whole numbers"),
        ({"level2_post_norm": True, "level2_post_norm_block_ids": ["a"]}, "level2_post_norm_block_ids|invalid literal"),
        ({"level2_post_norm": True, "level2_post_norm_block_ids": 7}, "odd"),
    ],
)
def test_hostile_folders_of_transformers_are_named(
    tmp_path: Path, pico: Classifier, changes: dict[str, Any], message: str
) -> None:
    folder = convert(save_model(pico, tmp_path / "pico.safetensors"), tmp_path / "odd")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith(str(folder)) and text.isprintable() and len(text) < 1000


def test_names_of_tensors_and_files_are_spelled_out(tmp_path: Path, pico: Classifier) -> None:
    path = tmp_path / "a\x1b[31m.pth"
    state = original_state(pico)
    torch.save({"model": {**state, "\x1b]0;title\x07" + "x" * 30_000: torch.ones(1)}}, path)
    with pytest.raises(CheckpointMismatch) as caught:
        load(path)
    text = str(caught.value)
    assert text.replace("\n", "").isprintable() and len(text) < 1000
    assert r"a\x1b[31m.pth" in text and r"\x1b]0;title\x07" in text


def test_about_names_the_file_once_and_keeps_harmless_causes() -> None:
    with pytest.raises(ValueError, match=r"^a/b\.pth holds no weights$"), about("a/b.pth"):
        raise ValueError("a/b.pth holds no weights")
    with pytest.raises(ValueError, match=r"^a/b\.pth: it is damaged$"), about("a/b.pth"):
        raise ValueError("a/b.pth: it is damaged")
    with pytest.raises(ValueError, match=r"^a/b\.pth: too wide$") as caught, about("a/b.pth"):
        raise TypeError("too wide")
    assert isinstance(caught.value.__cause__, TypeError)
    with (
        pytest.raises(ValueError, match=r"^a/b\.pth: its content makes no sense \(IndexError: no such row\)$"),
        about("a/b.pth"),
    ):
        raise IndexError("no such row")
    with pytest.raises(ValueError, match=r"^a/b\.pth: \\x1b$") as caught, about("a/b.pth"):
        raise ValueError("\x1b")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("wrap", ["document", "folder", "original", "openmmlab"])
def test_class_names_lose_what_would_steer_a_terminal(tmp_path: Path, pico: Classifier, wrap: str) -> None:
    names = ("a", "\x1b[31mb\x1b[0m", "c\r\n", "\u202ed")
    model = Classifier(dataclasses.replace(pico.config, class_names=names))
    model.load_state_dict(pico.state_dict())
    if wrap == "document":
        path = save_model(model, tmp_path / "m.safetensors")
    elif wrap == "openmmlab":
        path = tmp_path / "m.pth"
        torch.save({"meta": {"CLASSES": list(names)}, "state_dict": original_state(model)}, path)
    else:
        source = save_model(model, tmp_path / "m.safetensors")
        path = convert(source, tmp_path / ("folder" if wrap == "folder" else "m.pth"))
        if wrap == "folder":
            config = json.loads((path / "config.json").read_text())
            config["id2label"] = dict(enumerate(names))
            (path / "config.json").write_text(json.dumps(config))
    assert load(path).config.class_names == ("a", "[31mb[0m", "c", "d")
