"""Segmentors from original settings, rows of the catalog and files."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.backbones import BackboneConfig, variant
from internimage.checkpoints.catalog import catalog, info
from internimage.checkpoints.formats.openmmlab import stored_names, stored_palette, stored_settings
from internimage.checkpoints.save import save_model
from internimage.classification import Classifier, ClassifierConfig
from internimage.errors import CheckpointMismatch, UnknownName
from internimage.hub.create import create
from internimage.hub.keys import from_official, to_official
from internimage.hub.load import from_original, load
from internimage.segmentation import (
    Mask2FormerConfig,
    SegFormerConfig,
    SegmentationPreprocess,
    Segmentor,
    SegmentorConfig,
    SlidingWindow,
    UperNetConfig,
)
from internimage.segmentation.original.settings import segmentor_from_settings
from internimage.segmentation.published import published_config

KEYS = Path(__file__).parents[1] / "parity" / "data" / "keys"
PUBLISHED = {path.name.split(".")[0]: path for path in sorted(KEYS.glob("*segmentation__*"))}
ROWS = [entry for entry in catalog().values() if entry.task == "segmentation" and entry.source != "bundled"]
SMALL = {"core_op": "DCNv3", "channels": 16, "depths": [1, 1, 2, 1], "groups": [1, 2, 4, 8], "layer_scale": 1.0}


def published(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress(PUBLISHED[name].read_bytes()))


def configuration(entry_name: str) -> dict[str, Any]:
    [name] = [name for name in PUBLISHED if name.split("__")[-1] in (entry_name, f"{entry_name}_ss")]
    return published(name)


def settings(kind: str = "SegformerHead", num_classes: int = 3) -> dict[str, Any]:
    head = {"type": kind, "channels": 8, "num_classes": num_classes, "in_channels": [16, 32, 64, 128]}
    return {"type": "EncoderDecoder", "backbone": {"type": "InternImage", **SMALL}, "decode_head": head}


def original_state(model: Segmentor) -> dict[str, Tensor]:
    return to_official(model.state_dict(), model.config.head.kind)


def small(**changes: Any) -> Segmentor:
    config = segmentor_from_settings(settings())
    return Segmentor(dataclasses.replace(config, **changes)).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_configuration_has_its_keys_shapes_and_parameters(name: str) -> None:
    facts = published(name)
    config = segmentor_from_settings(facts["model"], test_pipeline=facts["test_pipeline"])
    with torch.device("meta"):
        model = Segmentor(config)
    shapes = {key: list(value.shape) for key, value in original_state(model).items()}
    assert shapes == facts["shapes"]
    assert sum(p.numel() for p in model.parameters()) == facts["parameters"]
    assert list(from_official(shapes, config.head.kind)) == list(model.state_dict())


@pytest.mark.parametrize("entry", ROWS, ids=lambda entry: entry.name)
def test_rows_are_the_published_configurations(entry: Any) -> None:
    facts = configuration(entry.name)
    expected = segmentor_from_settings(facts["model"], test_pipeline=facts["test_pipeline"])
    row = published_config(entry.name)
    assert row.rows == expected.num_classes and row.head == expected.head
    drop_path_rate = expected.backbone.drop_path_rate
    assert dataclasses.replace(row.backbone, drop_path_rate=drop_path_rate) == expected.backbone
    for name in ("scale", "multiple", "window"):
        assert getattr(row.preprocess, name) == getattr(expected.preprocess, name)
    assert row.class_names is not None and row.palette is not None and row.num_classes == entry.num_classes
    assert entry.is_built and entry.parameters == facts["parameters"]


def test_settings_that_are_not_built_are_refused() -> None:
    def change(part: str, **values: Any) -> dict[str, Any]:
        content = settings()
        target = content if part == "model" else content.setdefault(part, {})
        target.update(values)
        return content

    for content, text in (
        (change("decode_head", align_corners=True), "align_corners"),
        (change("decode_head", type="DAHead"), "DAHead"),
        (change("decode_head", in_channels=[1, 2, 3, 4]), "in_channels"),
        (change("decode_head", num_classes="3"), "num_classes"),
        (change("decode_head", loss_decode={"type": "DiceLoss"}), "DiceLoss"),
        (change("test_cfg", mode="tiles"), "tiles"),
        (change("model", type="FasterRCNN"), "FasterRCNN"),
        (change("model", backbone=None), "backbone"),
        (change("model", auxiliary_head={"type": "FCNHead"}), "auxiliary_head"),
    ):
        with pytest.raises(ValueError, match=text):
            segmentor_from_settings(content)


def test_windows_and_sizes_come_from_the_settings() -> None:
    content = {
        "model": {**settings(), "test_cfg": {"mode": "slide", "crop_size": (64, 48), "stride": (32, 24)}},
        "test_pipeline": [
            {
                "type": "MultiScaleFlipAug",
                "img_scale": (200, 100),
                "transforms": [{"type": "Resize"}, {"type": "ResizeToMultiple", "size_divisor": 32}],
            }
        ],
    }
    config = segmentor_from_settings(content, class_names=("a", "b"))
    assert config.preprocess == SegmentationPreprocess((200, 100), 32, SlidingWindow((64, 48), (32, 24)))
    assert (config.num_classes, config.classifier_rows) == (2, 3)


def test_original_file_states_its_settings_and_classes(tmp_path: Path) -> None:
    model = small()
    text = f"model = dict({', '.join(f'{k}={v!r}' for k, v in settings().items())})\nlr = 1e-4\n"
    meta = {"config": text, "CLASSES": ["a", "b", "c"], "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    torch.save({"meta": meta, "state_dict": original_state(model)}, tmp_path / "mine.pth")
    loaded = load(tmp_path / "mine.pth")
    assert isinstance(loaded, Segmentor)
    assert loaded.config.class_names == ("a", "b", "c") and loaded.config.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(pixels), model(pixels))
    del meta["config"]
    torch.save({"meta": meta, "state_dict": original_state(model)}, tmp_path / "silent.pth")
    with pytest.raises(ValueError, match="settings="):
        load(tmp_path / "silent.pth")
    assert isinstance(load(tmp_path / "silent.pth", settings=settings()), Segmentor)


@pytest.mark.parametrize("text", ["model = __import__('os')", "model = dict(a=open('x'))", "model = [", "x = dict()"])
def test_configuration_text_is_never_run(text: str) -> None:
    assert stored_settings({"meta": {"config": text}}) is None


def test_odd_metadata_counts_as_none() -> None:
    assert stored_names({"meta": {"CLASSES": "abc"}}) is None and stored_names({"meta": 3}) is None
    for palette in ([[1, 2]], [[1, 2, 300]], "red", []):
        assert stored_palette({"meta": {"PALETTE": palette}}) is None


def test_streets_answer_with_19_of_150_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published file has 150 rows, the row of the catalog 19 classes."""
    entry = info("segformer_internimage_l_512x1024_160k_mapillary2cityscapes")
    tiny = dataclasses.replace(
        published_config(entry.name),
        backbone=BackboneConfig(16, (1, 1, 2, 1), (1, 2, 4, 8), layer_scale=1.0),
        head=SegFormerConfig(channels=8, count_ignored_pixels=True),
    )
    monkeypatch.setattr("internimage.segmentation.original.recognition.published_config", lambda _: tiny)
    model = Segmentor(tiny)
    torch.save({"state_dict": original_state(model)}, tmp_path / f"{entry.name}.pth")
    loaded = load(tmp_path / f"{entry.name}.pth")
    assert isinstance(loaded, Segmentor)
    assert loaded.head.classifier.weight.shape[0] == 150
    assert loaded(torch.randn(1, 3, 32, 64)).shape[1] == 19 == len(loaded.config.class_names or ())


def test_loading_is_strict() -> None:
    state = original_state(small())
    wrong = {**state, "decode_head.extra.weight": torch.zeros(1)}
    del wrong["decode_head.fusion_conv.conv.weight"]
    with pytest.raises(CheckpointMismatch) as error:
        from_original(settings(), wrong)
    assert error.value.missing == ("head.fusion.conv.weight",)
    assert error.value.unexpected == ("decode_head.extra.weight",)


@pytest.mark.parametrize("head", [UperNetConfig(channels=8), Mask2FormerConfig(channels=64, decoder_layers=1)])
def test_own_files_hold_everything(head: Any, tmp_path: Path) -> None:
    window = SlidingWindow((64, 64), (32, 32))
    names, palette = ("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    model = small(
        head=head,
        preprocess=SegmentationPreprocess((96, 64), 32, window),
        class_names=names,
        palette=palette,
        classifier_rows=5,
    )
    loaded = load(save_model(model, tmp_path / "scene.safetensors"))
    assert isinstance(loaded, Segmentor) and loaded.config == model.config and not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key


@pytest.mark.parametrize("kind", ["upernet", "segformer", "mask2former"])
def test_fresh_segmentors(kind: str) -> None:
    with torch.device("meta"):
        model = create(kind, backbone="internimage_t", num_classes=5)
        plain = create(kind, backbone="internimage_pico", class_names=("a", "b"), layer_scale=0.5, drop_path_rate=0.1)
    assert isinstance(model, Segmentor) and model.training and model.config.head.kind == kind
    assert model.config.backbone == dataclasses.replace(variant("internimage_t"), layer_scale=1.0)
    assert isinstance(plain, Segmentor) and plain.config.class_names == ("a", "b")
    assert (plain.config.backbone.layer_scale, plain.config.backbone.drop_path_rate) == (0.5, 0.1)


def test_segmentors_start_from_classifiers_and_segmentors(tmp_path: Path) -> None:
    classifier = Classifier(ClassifierConfig(variant("internimage_pico"), 4))
    path = save_model(classifier, tmp_path / "pico.safetensors")
    head = SegFormerConfig(channels=8)
    model = create("segformer", backbone="internimage_pico", num_classes=3, weights=path, head=head)
    assert isinstance(model, Segmentor) and model.training
    for key, value in classifier.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[key])
    assert all(p.requires_grad and not p.is_meta for p in model.parameters())

    path = save_model(model, tmp_path / "scene.safetensors")
    other = create("segformer", num_classes=7, weights=path)
    assert isinstance(other, Segmentor)
    assert torch.equal(other.head.laterals[0].conv.weight, model.head.laterals[0].conv.weight)  # type: ignore[union-attr]
    assert other.head.classifier.weight.shape[0] == 7
    backbone = create("internimage_pico", weights=path)
    assert torch.equal(backbone.state_dict()["patch_embed.conv1.weight"], model.backbone.patch_embed.conv1.weight)
    with pytest.raises(ValueError, match="segformer"):
        create("upernet", weights=path)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        create("upernet", backbone="internimage_pico")
    with pytest.raises(TypeError, match="UperNetConfig"):
        create("upernet", backbone="internimage_pico", num_classes=2, head=SegFormerConfig())
    with pytest.raises(ValueError, match="out_indices"):
        create("upernet", backbone="internimage_pico", num_classes=2, out_indices=(1,))
    with pytest.raises(UnknownName, match="upernet"):
        create("uppernet")
    with pytest.raises(TypeError, match="SegmentationPreprocess"):
        create("upernet", backbone="internimage_pico", num_classes=2, preprocess=object())  # type: ignore[arg-type]


def test_other_numbers_of_classes_start_the_last_layers_afresh(tmp_path: Path) -> None:
    model = small(head=UperNetConfig(channels=8, auxiliary_channels=8), class_names=("a", "b", "c"))
    path = save_model(model, tmp_path / "scene.safetensors")
    loaded = load(path, num_classes=2)
    assert isinstance(loaded, Segmentor) and loaded.config.class_names is None
    assert loaded.head.auxiliary.classifier.weight.shape[0] == 2  # type: ignore[union-attr]
    assert torch.equal(loaded.head.fusion.conv.weight, model.head.fusion.conv.weight)
    assert SegmentorConfig(loaded.config.backbone, 2, loaded.config.head) == loaded.config
