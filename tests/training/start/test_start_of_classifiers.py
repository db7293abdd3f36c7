from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from internimage.backbones import variant
from internimage.checkpoints.save import save_model
from internimage.classification.head import HeadKind
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.data.labels import rows_22k_to_1k
from internimage.errors import CheckpointMismatch, UnknownName
from tests.training.building import start as load_start_weights

TINY = replace(variant("internimage_pico"), channels=8, depths=(1, 1, 1, 1), groups=(1, 1, 1, 1))


def classifier(classes: int | tuple[str, ...], head: HeadKind = "conv", drop_path_rate: float = 0.0) -> Classifier:
    backbone = replace(TINY, drop_path_rate=drop_path_rate)
    if isinstance(classes, int):
        return Classifier(ClassifierConfig(backbone, classes, head=head))
    return Classifier(ClassifierConfig(backbone, len(classes), head=head, class_names=classes))


def start(model: Classifier, weights: Path, reset_head: bool = False) -> None:
    load_start_weights(model, weights=str(weights), reset_head=reset_head)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, Classifier]:
    model = classifier(4)
    return save_model(model, tmp_path / "source.safetensors"), model


def test_everything_is_taken_over(source: tuple[Path, Classifier]) -> None:
    model = classifier(4, drop_path_rate=0.3)
    start(model, source[0])
    for key, value in source[1].state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_other_classes_need_a_new_last_layer(source: tuple[Path, Classifier]) -> None:
    model = classifier(3)
    with pytest.raises(ValueError, match=r"has 4 classes but the data set has 3; set model.reset_head=true"):
        start(model, source[0])
    before = model.head.classifier.weight.detach().clone()
    start(model, source[0], reset_head=True)
    torch.testing.assert_close(model.head.classifier.weight.detach(), before * 1e-3)
    assert torch.equal(model.head.conv.weight, source[1].head.conv.weight)
    assert torch.equal(model.backbone.patch_embed.conv1.weight, source[1].backbone.patch_embed.conv1.weight)


def test_imagenet_22k_rows(tmp_path: Path) -> None:
    large, model = classifier(21841), classifier(1000)
    start(model, save_model(large, tmp_path / "large.safetensors"))
    assert torch.equal(model.head.classifier.weight, large.head.classifier.weight[torch.tensor(rows_22k_to_1k())])


FRUIT = ("apple", "pear", "plum")


@pytest.mark.parametrize(
    ("names", "rows", "said"),
    [
        (FRUIT, (0, 1, 2), ""),
        (("plum", "Apple", "pear"), (2, 0, 1), ""),
        (("pear", "zebra"), (1, -1), "knows 1 of the 2 classes: .* those of 'zebra' start afresh"),
        (("x", "y", "z"), (-1, -1, -1), "knows none of the classes 'x', 'y', 'z': the last layers start afresh"),
        (("2", "0", "1"), (2, 0, 1), "taken by number"),
    ],
)
def test_the_last_layer_follows_the_names(
    names: tuple[str, ...], rows: tuple[int, ...], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, model = classifier(FRUIT), classifier(names)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    start(model, save_model(source, tmp_path / "fruit.safetensors"))
    given = source.state_dict()
    for key, value in model.state_dict().items():
        if not key.startswith("head.classifier."):
            assert torch.equal(value, given[key]), key
            continue
        for row, place in enumerate(rows):
            torch.testing.assert_close(value[row], fresh[key][row] * 1e-3 if place < 0 else given[key][place])
    text = "\n".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert re.search(said, text) if said else not text


def test_metadata_models_keep_their_fresh_branch(tmp_path: Path) -> None:
    other, model = classifier(FRUIT, "attention_pool"), classifier(("pear", "fig"), "attention_pool_metadata")
    fresh = model.head.classifier.weight.detach().clone()
    start(model, save_model(other, tmp_path / "other.safetensors"))
    assert torch.equal(model.head.classifier.weight, fresh)
    assert torch.equal(model.head.image.classifier.weight[0], other.head.classifier.weight[1])


def test_bare_backbone(tmp_path: Path) -> None:
    other, model = classifier(4), classifier(4)
    path = save_model(other.backbone, tmp_path / "backbone.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"bare backbone: set model.reset_head=true"):
        start(model, path)
    start(model, path, reset_head=True)
    assert torch.equal(model.backbone.levels[3].norm.weight, other.backbone.levels[3].norm.weight)
    assert torch.equal(model.backbone.levels[2].downsample.conv.weight, other.backbone.levels[2].downsample.conv.weight)


def test_metadata_model_from_a_model_without(tmp_path: Path) -> None:
    """The published iNaturalist run: a new last layer, all else from the model of ImageNet-22k."""
    other, model = classifier(5, "attention_pool"), classifier(3, "attention_pool_metadata")
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    start(model, save_model(other, tmp_path / "other.safetensors"), reset_head=True)
    assert torch.equal(model.head.image.project_x4.weight, other.head.project_x4.weight)
    assert torch.equal(model.head.temporal.fc.weight, fresh["head.temporal.fc.weight"])
    assert torch.equal(model.head.classifier.weight, fresh["head.classifier.weight"])
    torch.testing.assert_close(
        model.head.image.classifier.weight.detach(), fresh["head.image.classifier.weight"] * 1e-3
    )


def test_another_architecture(source: tuple[Path, Classifier]) -> None:
    model = Classifier(ClassifierConfig(variant("internimage_pico"), 4))
    with pytest.raises(CheckpointMismatch, match="must belong together"):
        start(model, source[0])


def test_unknown_weights() -> None:
    with pytest.raises((UnknownName, FileNotFoundError)):
        start(classifier(4), Path("internimage_q_1k_224"))


def test_no_weights_leave_the_model_alone() -> None:
    model = classifier(4)
    before = model.head.classifier.weight.detach().clone()
    load_start_weights(model)
    assert torch.equal(model.head.classifier.weight, before)
