"""The catalog against the published facts: rows, names, parameters and keys of every size."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from internimage import tasks
from internimage.backbones import VARIANTS, InternImage, variant
from internimage.checkpoints.catalog import BUNDLED, CatalogEntry, catalog, info, list_models
from internimage.classification import Classifier, ClassifierConfig
from internimage.classification.original.settings import classifier_from_settings
from internimage.classification.published import published_config
from internimage.data.labels import label_set, label_set_names, rows_22k_to_1k
from internimage.errors import UnknownName
from internimage.hub.inspect import row_config
from internimage.hub.keys import to_official
from internimage.hub.load import load
from internimage.hub.opening import read_checkpoint

CASES = Path(__file__).parent / "parity" / "data" / "cases"
PUBLISHED = [entry for entry in catalog().values() if entry.source != "bundled"]
CLASSIFIERS = [entry for entry in PUBLISHED if entry.is_built and entry.task == "classification"]

# size: parameters with 1000 classes, with 21,841 classes, of the backbone; tensors in the state dict with 1000 classes
COUNTS = {
    "internimage_t": (29_918_424, 45_945_153, 28_754_672, 633),
    "internimage_s": (50_079_880, 70_108_081, 48_502_560, 751),
    "internimage_b": (97_461_832, 125_492_977, 94_909_920, 751),
    "internimage_l": (223_334_810, 263_370_371, 218_952_370, 839),
    "internimage_xl": (334_819_780, 382_858_285, 328_971_228, 883),
    "internimage_h": (1_089_636_760, 1_105_663_489, 1_073_122_480, 1357),
    "internimage_g": (3_076_373_352, 3_092_400_081, 3_052_781_184, 1295),
    "flash_internimage_t": (29_815_528, None, 28_651_776, None),
    "flash_internimage_s": (50_067_496, None, 48_490_176, None),
    "flash_internimage_b": (97_448_960, None, 94_897_048, None),
    "flash_internimage_l": (223_297_080, 263_332_641, 218_914_640, None),
}


def classifier(config: ClassifierConfig) -> Classifier:
    with torch.device("meta"):
        return Classifier(config)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_of_every_size(name: str) -> None:
    head = "attention_pool" if name in ("internimage_h", "internimage_g") else "conv"
    with_1k, with_22k, backbone, tensors = COUNTS[name]
    model = classifier(ClassifierConfig(variant(name), 1000, head=head))
    assert (parameters(model), parameters(model.backbone)) == (with_1k, backbone)
    if tensors is not None:
        assert len(model.state_dict()) == tensors
    if with_22k is not None:
        assert parameters(classifier(ClassifierConfig(variant(name), 21841, head=head))) == with_22k


def test_parameter_count_with_metadata_head() -> None:
    config = ClassifierConfig(variant("internimage_h"), 8142, head="attention_pool_metadata")
    assert parameters(classifier(config)) == 1_096_197_516


@pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda entry: entry.name)
def test_rows_state_the_parameters_of_what_they_build(entry: CatalogEntry) -> None:
    assert entry.backbone_config is not None and entry.num_classes is not None
    config = ClassifierConfig(entry.backbone_config, entry.num_classes, head=entry.head)  # type: ignore[arg-type]
    assert parameters(classifier(config)) == entry.parameters


@pytest.mark.parametrize("case", ["cls_t", "cls_b", "small_h", "small_prenorm"])
def test_keys_and_shapes_are_the_originals(case: str) -> None:
    manifest = json.loads((CASES / case / "manifest.json").read_text())
    config = classifier_from_settings(manifest["config"])
    state = to_official(classifier(config).state_dict(), config.head)
    assert {key: list(value.shape) for key, value in state.items()} == manifest["shapes"]


@pytest.mark.parametrize("entry", [entry for entry in catalog().values() if entry.source == "bundled"])
def test_rows_of_the_bundled_models_describe_them_whole(entry: CatalogEntry) -> None:
    built, stored = row_config(entry), read_checkpoint(BUNDLED / entry.filename).config
    assert isinstance(stored, type(built))
    depth = stored.backbone.drop_path_rate  # of the training, which rows do not state
    assert dataclasses.replace(built, backbone=dataclasses.replace(built.backbone, drop_path_rate=depth)) == stored
    with torch.device("meta"):
        assert parameters(tasks.of_config(built).build(built)) == entry.parameters


def test_every_published_checkpoint_has_a_row() -> None:
    assert len(PUBLISHED) == 103
    assert Counter(entry.task for entry in PUBLISHED) == {
        "classification": 28,
        "detection": 35,
        "segmentation": 35,
        "occupancy": 2,
        "online_map": 2,
        "lane_topology": 1,
    }
    assert len(CLASSIFIERS) == 28
    assert sum(entry.source == "huggingface" for entry in PUBLISHED) == 11
    assert sum(entry.source == "unpublished" for entry in PUBLISHED) == 3


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_rows_are_complete(entry: CatalogEntry) -> None:
    assert entry.licence and entry.method and entry.dataset
    assert entry.url is None or entry.url.startswith("https://")
    assert all(0 < value <= 100 for value in entry.metrics.values())
    if entry.url is not None and "resolve" in entry.url:
        assert entry.url.endswith(f"/{entry.filename}")
    if entry.labels is not None:
        assert len(label_set(entry.labels)) == entry.num_classes
    if entry.task == "classification":
        assert published_config(entry.name).preprocess.size == int(entry.name.split("_")[-1].split("to")[-1])
    json.dumps(entry.to_dict())


def test_detectors_and_segmentors_have_branch_scales_where_they_were_trained_with_them() -> None:
    for entry in PUBLISHED:
        if entry.task in ("detection", "segmentation"):
            is_large = entry.backbone.split("_")[-1] in ("h", "g")
            assert entry.layer_scale == (None if is_large else 1.0), entry.name
    detector = info("mask_rcnn_internimage_t_fpn_1x_coco").backbone_config
    assert detector is not None and detector.layer_scale == 1.0 and VARIANTS["internimage_t"].layer_scale is None


def test_a_detectors_backbone_builds() -> None:
    config = info("mask_rcnn_internimage_t_fpn_1x_coco").backbone_config
    assert config is not None
    with torch.device("meta"):
        assert len(InternImage(config).state_dict()) == 625 + 2 * 30


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("internimage_g_jointto22k_384", "internimage_g_pretrainto22k_384"),
        ("internimage_l_22k_384", "internimage_l_22k_192to384"),
        ("internimage_xl_22k_384.pth", "internimage_xl_22k_192to384"),
        ("OpenGVLab/internimage_t_1k_224", "hf:internimage_t_1k_224"),
        ("hf:internimage_g_pretrainto22k_384", "hf:internimage_g_jointto22k_384"),
        ("flash_internimage_t_1k_224", "flash_intern_image_t_1k_224"),
        ("flash_intern_image_l_22kto1k_384", "flash_internimage_l_22kto1k_384"),
        ("flash_internimage_l_22k_384", "flash_intern_image_l_22k_384"),
        ("mask_rcnn_flash_intern_image_s_fpn_3x_coco", "mask_rcnn_flash_internimage_s_fpn_3x_coco"),
        (" InternImage_B_1k_224.PTH", "internimage_b_1k_224"),
    ],
)
def test_other_spellings_find_their_row(spelling: str, name: str) -> None:
    assert info(spelling).name == name


def test_unknown_names_suggest_three() -> None:
    with pytest.raises(UnknownName, match="internimage_t_1k_224") as caught:
        info("internimage_t_1k_22")
    assert len(caught.value.suggestions) == 3
    with pytest.raises(UnknownName, match="segmentation"):
        list_models(task="segmentations")


def test_list_models_filters_by_pattern_and_task() -> None:
    assert len(list_models("mask_rcnn*")) == 13
    assert list_models("Mask2Former_internimage_H*nyu") == ["mask2former_internimage_h_480_40k_nyu"]
    assert set(list_models("*", task="lane_topology")) == {"openlanev2_internimage-s"}
    assert list_models("nothing*") == []


def test_bundled_rows_have_their_files() -> None:
    bundled = [entry for entry in catalog().values() if entry.source == "bundled"]
    assert {path.name for path in BUNDLED.glob("*.safetensors")} == {entry.filename for entry in bundled}
    assert all((BUNDLED / entry.filename).stat().st_size <= 8e6 for entry in bundled)
    assert {entry.name: parameters(load(entry.name)) for entry in bundled} == {
        entry.name: entry.parameters for entry in bundled
    }


def test_label_sets() -> None:
    assert [len(label_set(name)) for name in ("imagenet_1k", "imagenet_22k", "coco_80")] == [1000, 21841, 80]
    assert label_set("imagenet_1k").class_names[281] == "tabby"
    assert label_set("cityscapes_19").palette is not None
    for name in label_set_names():
        labels = label_set(name)
        assert all(labels.class_names)
        assert labels.palette is None or len(labels.palette) == len(labels)
    with pytest.raises(UnknownName, match="coco_80"):
        label_set("coco_81")


def test_imagenet_names_are_those_of_torchvision() -> None:
    from torchvision.models import ResNet18_Weights

    assert list(label_set("imagenet_1k").class_names) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


def test_rows_from_22k_to_1k_share_one_row_only() -> None:
    rows = rows_22k_to_1k()
    assert rows[:5] == (359, 368, 460, 475, 486)
    assert len(rows) == 1000 and len(set(rows)) == 999
    assert rows[849] == rows[850] == 11136
    synsets_1k, synsets_22k = label_set("imagenet_1k").synsets, label_set("imagenet_22k").synsets
    assert synsets_1k is not None and synsets_22k is not None
    assert [i for i in range(1000) if synsets_22k[rows[i]] != synsets_1k[i]] == [850]
