"""Weights of RGB for images of other channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import internimage as ii
from internimage.checkpoints.fill import adapt_first_layer
from internimage.classification import ClassificationPreprocess, Classifier
from internimage.errors import CheckpointMismatch

PICO = "internimage_pico_fashion"
STEM = "backbone.patch_embed.conv1.weight"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_the_rule_is_that_of_timm(channels: int) -> None:
    manipulate = pytest.importorskip("timm.models._manipulate")
    weight = torch.randn(8, 3, 3, 3)
    torch.testing.assert_close(adapt_first_layer(weight, channels), manipulate.adapt_input_conv(channels, weight))


def test_equal_channels_give_the_answer_of_rgb() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    answers = []
    for channels in (1, 3, 6):
        preprocess = ClassificationPreprocess(32, mean=(0.45,) * channels, std=(0.225,) * channels)
        model = ii.create("classifier", weights=PICO, in_chans=channels, preprocess=preprocess).eval()
        image = gray if channels == 1 else gray[..., None].repeat(channels, 2)
        answers.append(model.predict([image])[0].scores)
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answers[2], answers[0], atol=1e-4, rtol=1e-4)


def test_every_way_to_a_model_of_four_channels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 4), dtype=np.uint8)
    created = ii.create("classifier", weights=PICO, in_chans=4).eval()
    loaded = ii.load(PICO, in_chans=4)
    expected = adapt_first_layer(ii.load(PICO).state_dict()[STEM], 4)
    path = ii.save_model(loaded, tmp_path / "four.safetensors")
    for model in (created, loaded, ii.load(path), ii.create("classifier", weights=path).eval()):
        assert isinstance(model, Classifier)
        assert model.config.backbone.in_chans == 4 and model.config.preprocess.mean == (0.449,) * 4
        torch.testing.assert_close(model.state_dict()[STEM], expected)
        torch.testing.assert_close(model.predict([image])[0].scores, created.predict([image])[0].scores)
    bare = ii.create("internimage_pico", in_chans=4, weights=PICO)
    torch.testing.assert_close(bare.state_dict()["patch_embed.conv1.weight"], expected)


@pytest.mark.parametrize("name", ["mask_rcnn_internimage_pico_closet", "upernet_internimage_pico_closet", "dino"])
def test_detectors_and_segmentors(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (40, 56, 2), dtype=np.uint16)
    if name == "dino":
        model = ii.create("dino", backbone="internimage_pico", num_classes=3, weights=PICO, in_chans=2).eval()
    else:
        model = ii.load(name, in_chans=2)
    assert model.config.preprocess.channels == 2
    [found] = model.predict([image])
    assert found.original_hw == (40, 56)


def test_channels_that_cannot_be_adapted_are_refused_with_a_sentence(tmp_path: Path) -> None:
    four = ii.create("classifier", backbone="internimage_pico", num_classes=2, in_chans=4)
    path = ii.save_model(four, tmp_path / "four.safetensors")
    for channels in (3, 5):
        with pytest.raises(CheckpointMismatch, match=r"Only the channels of the input differ"):
            ii.load(path, in_chans=channels)


def test_statistics_must_be_those_of_the_channels() -> None:
    with pytest.raises(ValueError, match="reads 4 channels, but mean and std of the preprocessing are those of 3"):
        own = ClassificationPreprocess(32, mean=(0.1, 0.2, 0.3))
        ii.create("classifier", backbone="internimage_pico", num_classes=2, in_chans=4, preprocess=own)
    with pytest.raises(ValueError, match="one value for each channel"):
        ClassificationPreprocess(32, mean=(0.5,))


def test_the_range_is_saved_with_the_model(tmp_path: Path) -> None:
    model = ii.load(PICO, value_range=(0, 4095))
    saved = ii.load(ii.save_model(model, tmp_path / "a.safetensors"))
    converted = ii.load(ii.convert(tmp_path / "a.safetensors", tmp_path / "b.pth"))
    dark = np.random.default_rng(0).integers(0, 4096, (32, 32), dtype=np.uint16)
    same = np.rint(dark * (255 / 4095)).astype(np.uint8)
    for reader in (model, saved, converted):
        assert reader.config.preprocess.value_range == (0, 4095)
        torch.testing.assert_close(reader.predict([dark])[0].scores, ii.load(PICO).predict([same])[0].scores)
    with pytest.raises(ValueError, match="value range"):
        ii.convert(tmp_path / "a.safetensors", tmp_path / "folder")
