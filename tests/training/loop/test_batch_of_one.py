"""Batch norm that sees one value for each channel is refused by name, before the first step and in `loss`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from internimage.backbones import variant
from internimage.classification import Classifier, ClassifierConfig
from internimage.segmentation import SegFormerConfig, Segmentor, SegmentorConfig, UperNetConfig
from internimage.segmentation.training.recipe import SegmentationRecipe
from internimage.training import recipe, train
from internimage.types import Images


def batch(number: int, side: int = 64) -> Images:
    return Images(torch.rand(number, 3, side, side), torch.full((number, 2), side), ((side, side),) * number)


@pytest.mark.parametrize("architecture", ["upernet", "upernet_small"])
def test_a_run_of_upernet_names_the_batch_size_and_the_head(architecture: str, scenes: Path, tmp_path: Path) -> None:
    settings = ["data.batch_size=1", f"model.architecture={architecture}"]
    chosen = recipe("upernet_internimage_pico_closet").with_overrides(settings)
    with pytest.raises(ValueError, match=f"data.batch_size must be at least 2 for the head {architecture}, given 1"):
        train(chosen, data=scenes, out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_other_heads_take_single_images() -> None:
    for name in ("segformer", "mask2former_small"):
        settings = ["data.batch_size=1", f"model.architecture={name}"]
        chosen = recipe("upernet_internimage_pico_closet").with_overrides(settings)
        assert isinstance(chosen, SegmentationRecipe)
        chosen.check_batch()


def test_small_images_of_a_classifier() -> None:
    settings = ["data.batch_size=1", "augment.mixup=0", "augment.cutmix=0"]
    with pytest.raises(ValueError, match=r"data.batch_size must be at least 2 for the head conv and images of 32"):
        recipe("internimage_pico_fashion").with_overrides([*settings, "data.size=32"])
    assert recipe("internimage_pico_fashion").with_overrides([*settings, "data.size=33"]).data.batch_size == 1


def test_one_training_image_is_refused_before_the_first_step(scenes: Path, tmp_path: Path) -> None:
    chosen = recipe("upernet_internimage_pico_closet").with_overrides(["data.holdout=7"])
    with pytest.raises(ValueError, match=r"data.batch_size"):
        train(chosen, data=scenes, out=tmp_path / "run", progress=False)


def test_the_loss_of_one_image() -> None:
    targets = torch.zeros(1, 64, 64, dtype=torch.int64)
    config = SegmentorConfig(variant("internimage_pico"), 3, head=UperNetConfig(channels=32, auxiliary_channels=None))
    model = Segmentor(config)
    with pytest.raises(ValueError, match=r"UperNet .* at least 2 images, given 1; .*data.batch_size=2"):
        model.loss(batch(1), targets)
    with pytest.raises(ValueError, match=r"more than one value for each channel, given \(1, 32, 1, 1\)"):
        model(batch(1).pixels)
    assert model.eval().loss(batch(1), targets)["cross_entropy"].isfinite()
    assert model.train().loss(batch(2), targets.expand(2, -1, -1))["cross_entropy"].isfinite()
    without = SegmentorConfig(variant("internimage_pico"), 3, head=UperNetConfig(channels=32, pool_scales=(2, 3)))
    assert Segmentor(without).loss(batch(1), targets)["cross_entropy"].isfinite()
    other = SegmentorConfig(variant("internimage_pico"), 3, head=SegFormerConfig(channels=32))
    assert Segmentor(other).loss(batch(1), targets)["cross_entropy"].isfinite()


def test_the_loss_of_one_small_image_of_a_classifier() -> None:
    model = Classifier(ClassifierConfig(variant("internimage_pico"), num_classes=3))
    with pytest.raises(ValueError, match=r"data.batch_size=2"):
        model.loss(batch(1, 32), torch.tensor([0]))
    assert model.loss(batch(1, 64), torch.tensor([0]))["cross_entropy"].isfinite()
