from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from internimage import tasks
from internimage.backbones import BackboneConfig, variant
from internimage.checkpoints import fill, rename
from internimage.classification import Classifier, ClassifierConfig
from internimage.classification.head import HEAD_KINDS, HeadKind
from internimage.classification.original.names import head_kind
from internimage.hub.keys import from_official, to_official

CASES = Path(__file__).parents[1] / "parity" / "data" / "cases"
SIZES = ("internimage_t", "internimage_s", "internimage_h", "internimage_g")


def keys(config: ClassifierConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in Classifier(config).state_dict().items()}


@pytest.mark.parametrize("head", HEAD_KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_names_go_there_and_back(size: str, head: HeadKind) -> None:
    ours = keys(ClassifierConfig(variant(size), 10, head=head))
    original = to_official(ours, head)
    assert from_official(original, head) == ours
    assert head_kind(original) == tasks.known().own_kind(ours) == head
    folder = rename.to_huggingface(original)
    assert rename.from_huggingface(rename.strip_prefix(folder, rename.HUGGINGFACE_PREFIX)) == original
    assert all(key.startswith("model.") and "gamma" not in key for key in folder)


@pytest.mark.parametrize("case", ["cls_t", "cls_b", "small_h"])
def test_order_of_the_originals_entries_does_not_matter(case: str) -> None:
    shapes = json.loads((CASES / case / "manifest.json").read_text())["shapes"]
    head = head_kind(shapes)
    ours = from_official(shapes, head)
    assert to_official(ours, head) == shapes
    assert list(to_official(ours, head)) == list(shapes)


def test_names_of_the_metadata_head() -> None:
    ours = keys(ClassifierConfig(variant("internimage_h"), 10, head="attention_pool_metadata"))
    names = set(to_official(ours, "attention_pool_metadata"))
    assert {
        "meta_head_1.0.weight",
        "meta_head_1.2.bias",
        "meta_head_2.3.w1.weight",
        "meta_head_2.3.norm_fn2.bias",
    } <= names
    assert {"meta_norm.weight", "meta_head.bias", "head.weight", "fc_norm.0.weight"} <= names


def test_unknown_names_stay_in_one_direction_and_raise_in_the_other() -> None:
    assert from_official({"levels.9.strange": 1}, "conv") == {"levels.9.strange": 1}
    with pytest.raises(ValueError, match="strange"):
        to_official({"backbone.strange": 1}, "conv")


def test_two_entries_with_one_name_raise() -> None:
    with pytest.raises(ValueError, match="two entries"):
        from_official({"head.weight": 1, "head.classifier.weight": 2}, "conv")


def test_remove_center_drops_the_published_rows_once() -> None:
    config = BackboneConfig(16, (1, 1, 1, 1), (2, 2, 2, 2), remove_center=True)
    mask, offset = torch.arange(18.0), torch.arange(36.0)[:, None].expand(-1, 4)
    kept_mask = fill.remove_center("levels.0.blocks.0.dcn.mask.bias", mask, config)
    kept_offset = fill.remove_center("backbone.levels.0.blocks.0.dcn.offset.weight", offset, config)
    assert kept_mask.tolist() == [r for r in range(18) if r % 9 != 4]
    assert kept_offset[:, 0].tolist() == [r for r in range(36) if r % 18 not in (8, 9)]
    assert fill.remove_center("levels.0.blocks.0.dcn.mask.bias", kept_mask, config) is kept_mask
    assert fill.remove_center("levels.0.blocks.0.dcn.offset.weight", kept_offset, config) is kept_offset
    assert fill.remove_center("levels.0.blocks.0.dcn.output_proj.bias", mask, config) is mask
    full = BackboneConfig(16, (1, 1, 1, 1), (2, 2, 2, 2))
    assert fill.remove_center("levels.0.blocks.0.dcn.mask.bias", mask, full) is mask
