from __future__ import annotations

import dataclasses

import pytest
import torch

from internimage.backbones import VARIANTS, variant
from internimage.backbones.original.shapes import infer_backbone
from internimage.classification import Classifier, ClassifierConfig
from internimage.classification.head import HeadKind
from internimage.classification.original.recognition import infer_classifier
from internimage.hub.keys import to_official


def shapes(config: ClassifierConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = Classifier(config).state_dict()
    return {key: tuple(value.shape) for key, value in to_official(state, config.head).items()}


def head_of(name: str) -> HeadKind:
    return "attention_pool" if name in ("internimage_h", "internimage_g") else "conv"


@pytest.mark.parametrize("name", VARIANTS)
def test_every_size_is_recognized(name: str) -> None:
    config = infer_classifier(shapes(ClassifierConfig(variant(name), 1000, head=head_of(name))), "a file")
    assert (config.backbone, config.num_classes, config.head) == (variant(name), 1000, head_of(name))


@pytest.mark.parametrize(
    ("name", "classes", "size"),
    [
        *(("internimage_t", 1000, 224), ("internimage_l", 21841, 384), ("internimage_g", 1000, 512)),
        *(("internimage_h", 1000, 640), ("internimage_h", 8142, 384)),
    ],
)
def test_input_size_is_the_published_one(name: str, classes: int, size: int) -> None:
    config = ClassifierConfig(variant(name), classes, head=head_of(name))
    assert infer_classifier(shapes(config), "a file").preprocess.size == size


def test_a_detectors_scales_and_a_removed_center_show() -> None:
    wanted = dataclasses.replace(variant("internimage_t"), layer_scale=1.0, remove_center=True)
    assert infer_backbone(shapes(ClassifierConfig(wanted, 10)), "a file") == ("internimage_t", wanted)


def test_a_part_that_differs_is_left_to_the_strict_comparison() -> None:
    config = dataclasses.replace(variant("internimage_t"), dw_kernel_size=5)
    assert infer_backbone(shapes(ClassifierConfig(config, 10)), "a file") == ("internimage_t", variant("internimage_t"))


def test_other_sizes_are_explained() -> None:
    config = dataclasses.replace(variant("internimage_t"), depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"a file .*offset_scale .*settings="):
        infer_classifier(shapes(ClassifierConfig(config, 10)), "a file")


def test_foreign_networks_are_explained() -> None:
    with pytest.raises(ValueError, match="no classification head"):
        infer_classifier({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512)}, "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth is no InternImage checkpoint .*patch_embed"):
        infer_backbone({"conv1.weight": (64, 3, 7, 7)}, "resnet.pth")
