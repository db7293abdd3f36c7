from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from internimage.backbones import BackboneConfig
from internimage.segmentation import Mask2FormerConfig, SegmentationPreprocess, Segmentor, SlidingWindow
from internimage.segmentation.model import HeadConfig, SegmentorConfig
from internimage.segmentation.segformer import SegFormerConfig, SegFormerHead
from internimage.segmentation.upernet import UperNetConfig, resize_map
from internimage.types import Images

BACKBONE = BackboneConfig(channels=8, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))
HEADS: dict[str, HeadConfig] = {
    "upernet": UperNetConfig(channels=8, auxiliary_channels=8),
    "segformer": SegFormerConfig(channels=8),
    "mask2former": Mask2FormerConfig(
        channels=64, num_queries=5, num_heads=2, encoder_layers=1, encoder_hidden_channels=16, decoder_layers=3,
        decoder_hidden_channels=16, loss_points=32,
    ),
}  # fmt: skip


def build(kind: str, **changes: object) -> Segmentor:
    config = SegmentorConfig(BACKBONE, 4, HEADS[kind], SegmentationPreprocess(scale=(96, 64), multiple=8))
    model = Segmentor(dataclasses.replace(config, **changes))
    with torch.no_grad():  # offsets and logits start at zero: make every part count
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_the_head_of_upernet_joins_levels_as_a_sum_in_inference() -> None:
    model, pixels = build("upernet"), torch.rand(2, 3, 64, 96)
    whole = model(pixels).detach()
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), whole, rtol=1e-4, atol=1e-5)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", HEADS)
def test_answers_do_not_depend_on_the_batch(kind: str) -> None:
    model = build(kind)
    images = [photo(50, 70), photo(40, 90, 1), photo(50, 70, 2)]
    together = model.predict(images, batch_size=3, probabilities=True)
    for image, answer in zip(images, together, strict=True):
        [alone] = model.predict([image], probabilities=True)
        assert answer.label_map.dtype == torch.uint8
        assert tuple(answer.label_map.shape) == image.shape[:2] == answer.original_hw
        assert answer.probabilities is not None and alone.probabilities is not None
        torch.testing.assert_close(answer.probabilities, alone.probabilities, atol=1e-4, rtol=1e-4)
    assert model.predict([]) == []


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("hw", [(1, 1), (33, 47)])
def test_every_size_is_answered(kind: str, hw: tuple[int, int]) -> None:
    model = build(kind, preprocess=SegmentationPreprocess(scale=None))
    [answer] = model.predict([photo(*hw)])
    assert answer.original_hw == hw


def test_one_window_is_the_whole_image_and_more_cover_it() -> None:
    model = build("segformer")
    image = photo(90, 120)
    whole = SegmentationPreprocess(scale=None)
    [plain] = model.predict([image], preprocess=whole, probabilities=True)
    one = dataclasses.replace(whole, window=SlidingWindow((128, 128), (128, 128)))
    [windowed] = model.predict([image], preprocess=one, probabilities=True)
    assert plain.probabilities is not None and windowed.probabilities is not None
    torch.testing.assert_close(windowed.probabilities, plain.probabilities)
    many = dataclasses.replace(whole, window=SlidingWindow((64, 48), (32, 32)))
    [answer] = model.predict([image], preprocess=many)
    assert answer.original_hw == (90, 120)


def test_queries_see_the_same_with_and_without_all_layers() -> None:
    model = build("mask2former")
    features = model.backbone(torch.randn(2, 3, 64, 96))
    outputs = model.head.layer_outputs(features)  # type: ignore[union-attr]
    assert len(outputs) == 4
    classes = outputs[-1].class_logits.softmax(-1)[..., :-1]
    expected = torch.einsum("nqk,nqhw->nkhw", classes, outputs[-1].mask_logits.sigmoid())
    torch.testing.assert_close(model.head(features), expected)


@pytest.mark.parametrize("kind", HEADS)
def test_every_parameter_is_trained_and_forward_keeps_its_type(kind: str) -> None:
    model = build(kind).train()
    pixels = torch.randn(2, 3, 64, 96)
    assert model(pixels).shape == (2, 4, 16, 24)
    targets = torch.randint(0, 4, (2, 64, 96))
    targets[0, :8] = 255
    losses = model.loss(Images(pixels, torch.tensor([[64, 96]] * 2), ((64, 96),) * 2), targets)
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_auxiliary_loss_is_optional() -> None:
    pixels, targets = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64)
    images = Images(pixels, torch.tensor([[64, 64]]), ((64, 64),))
    assert set(build("upernet").loss(images, targets)) == {"cross_entropy", "auxiliary_cross_entropy"}
    alone = build("upernet", head=dataclasses.replace(HEADS["upernet"], auxiliary_channels=None))
    assert set(alone.loss(images, targets)) == {"cross_entropy"}


def test_surplus_rows_of_the_classifier_are_never_answered() -> None:
    model = build("upernet", classifier_rows=10)
    with torch.no_grad():
        model.head.classifier.bias[4:] = 100.0  # type: ignore[union-attr,index]
    assert model(torch.randn(1, 3, 32, 32)).shape[1] == 4
    [answer] = model.predict([photo(30, 40)])
    assert answer.num_classes == 4 and int(answer.label_map.max()) < 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"class_names": ("a",)}, "class_names"),
        ({"palette": ((0, 0, 0),)}, "palette"),
        ({"classifier_rows": 3}, "classifier_rows"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SegmentorConfig(**{"backbone": BACKBONE, "num_classes": 4, **changes})  # type: ignore[arg-type]


def test_bad_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jpg"):
        build("segformer").predict(["nowhere.jpg"])
    with pytest.raises(TypeError, match="list"):
        build("segformer").predict(photo(4, 4))  # type: ignore[arg-type]


def test_fuse_changes_nothing_but_speed() -> None:
    model = build("upernet")
    image = photo(40, 60)
    [before] = model.predict([image], probabilities=True)
    [after] = model.fuse().predict([image], probabilities=True)
    assert before.probabilities is not None and after.probabilities is not None
    torch.testing.assert_close(after.probabilities, before.probabilities, atol=1e-4, rtol=1e-4)


def test_the_head_of_segformer_fuses_each_level_at_its_own_size() -> None:
    head = build("segformer").head
    assert isinstance(head, SegFormerHead)
    maps = [torch.rand(2, 8, 16 // s, 24 // s) for s in (1, 2, 4, 8)]
    joined = torch.cat([resize_map(x, (16, 24)) for x in maps], dim=1)
    expected = head.fusion.finish(head.fusion.conv(joined))
    torch.testing.assert_close(head.fusion(maps), expected, rtol=1e-4, atol=1e-5)
