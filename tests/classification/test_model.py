from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.backbones import variant
from internimage.classification import ClassificationPreprocess, Classifier, ClassifierConfig
from internimage.classification.preprocess import Observation
from internimage.data.images.read import BadImage

Build = Callable[..., Classifier]
KINDS = [
    ("plain", "conv"),
    ("like_h", "attention_pool"),
    ("like_g", "attention_pool"),
    ("like_h", "attention_pool_metadata"),
]
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(40, 50), (7, 90), (1, 1), (32, 32), (64, 33)]]


@pytest.mark.parametrize(("backbone", "head"), KINDS)
@pytest.mark.parametrize("hw", [(64, 64), (32, 96), (33, 65), (47, 100), (1, 1), (5, 200)])
def test_any_input_size(build: Build, backbone: str, head: str, hw: tuple[int, int]) -> None:
    model = build(backbone, head).eval()
    pixels = torch.randn(2, 3, *hw)
    logits = model(pixels)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    # Each image is answered for itself, and `valid_hw` says nothing to a classifier.
    torch.testing.assert_close(model(pixels[1:], torch.tensor([[1, 1]])), logits[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("backbone", "head"), KINDS)
def test_every_parameter_gets_a_gradient(build: Build, backbone: str, head: str) -> None:
    model = build(backbone, head)
    images = model.preprocess(IMAGES[:2])
    losses = model.loss(images, torch.tensor([1, 4]), label_smoothing=0.1)
    assert set(losses) == {"cross_entropy"}
    losses["cross_entropy"].backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


def test_empty_batch(build: Build) -> None:
    assert build().eval()(torch.zeros(0, 3, 32, 32)).shape == (0, 5)


def test_wrong_pixels(build: Build) -> None:
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        build()(torch.zeros(3, 32, 32))


def test_forward_returns_logits_in_both_modes(build: Build) -> None:
    model = build()
    assert model.train()(torch.zeros(2, 3, 32, 32)).shape == model.eval()(torch.zeros(2, 3, 32, 32)).shape


# --- predict --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_predict_answers_in_order_whatever_the_batch_size(build: Build, batch_size: int) -> None:
    model = build().eval()
    answers = model.predict(IMAGES, batch_size=batch_size)
    assert [answer.original_hw for answer in answers] == [image.shape[:2] for image in IMAGES]
    for image, answer in zip(IMAGES, answers, strict=True):
        [alone] = model.predict([image])
        torch.testing.assert_close(answer.scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert answer.scores.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert answer.name == f"class {answer.label}"
        assert not answer.scores.requires_grad


def test_predict_takes_every_kind_of_image(build: Build, tmp_path: Path) -> None:
    model = build()
    array = IMAGES[0]
    PIL.Image.fromarray(array).save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), PIL.Image.fromarray(array), array, tensor, tensor / 255]
    answers = model.predict(sources)
    for answer in answers[1:]:
        torch.testing.assert_close(answer.scores, answers[0].scores, rtol=1e-4, atol=1e-6)


def test_predict_runs_in_evaluation_mode_and_restores_every_mode(build: Build) -> None:
    model = build(drop_path=0.5).train()
    model.head.norm.eval()
    before = {name: module.training for name, module in model.named_modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    first, second = model.predict(IMAGES[:1])[0], model.predict(IMAGES[:1])[0]
    assert torch.equal(first.scores, second.scores)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    with pytest.raises(BadImage):
        model.predict([Path("nowhere.png")])
    assert {name: module.training for name, module in model.named_modules()} == before


def test_predict_nothing(build: Build) -> None:
    assert build().predict([]) == []


@pytest.mark.parametrize(
    "one", ["cat.jpg", Path("cat.jpg"), IMAGES[0], torch.zeros(3, 4, 4)], ids=lambda x: type(x).__name__
)
def test_predict_wants_a_list(build: Build, one: object) -> None:
    with pytest.raises(TypeError, match=r"predict\(\[\.\.\.\]\)"):
        build().predict(one)


def test_predict_wrong_batch_size(build: Build) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        build().predict(IMAGES, batch_size=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_predict_in_other_precisions(build: Build, dtype: torch.dtype) -> None:
    model = build()
    expected = model.predict(IMAGES)
    for found, want in zip(model.to(dtype).predict(IMAGES), expected, strict=True):
        assert found.scores.dtype == torch.float32
        torch.testing.assert_close(found.scores, want.scores, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["backbone.patch_embed.conv1.weight", "head.classifier.bias"])
def test_nan_weights_are_reported(build: Build, name: str) -> None:
    model = build()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite .*\[0, 1\].* check the weights"):
        model.predict(IMAGES[:2])


# --- date and place -------------------------------------------------------------------------------


def test_observations_reach_the_head(build: Build) -> None:
    model = build("like_h", "attention_pool_metadata").eval()
    here = Observation(datetime.date(2018, 6, 1), latitude=51.0, longitude=7.0)
    known = model.predict(IMAGES, batch_size=2, observations=[here, None, here, None, here])
    unknown = model.predict(IMAGES)
    for i, (with_place, without) in enumerate(zip(known, unknown, strict=True)):
        is_equal = torch.allclose(with_place.scores, without.scores, rtol=1e-4, atol=1e-6)
        assert is_equal == (i % 2 == 1)
    batch = model.preprocess(IMAGES[:2], [here, None])
    assert batch.metadata is not None and batch.metadata.shape == (2, 7)
    torch.testing.assert_close(model.run(batch)[1:], model(batch.pixels[1:]), rtol=1e-4, atol=1e-5)


def test_wrong_observations(build: Build) -> None:
    with pytest.raises(ValueError, match="does not use observations"):
        build().predict(IMAGES, observations=[None] * len(IMAGES))
    model = build("like_h", "attention_pool_metadata")
    with pytest.raises(ValueError, match="one entry per image: 5, given 6"):
        model.predict(IMAGES, batch_size=2, observations=[None] * 6)
    with pytest.raises(ValueError, match="one entry per image"):
        model.preprocess(IMAGES, [None])


# --- settings -------------------------------------------------------------------------------------


def test_class_names_must_fit() -> None:
    with pytest.raises(ValueError, match="class_names must hold 3 names, given 2"):
        ClassifierConfig(variant("internimage_pico"), 3, class_names=("a", "b"))


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"head": "linear"}])
def test_wrong_head(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Classifier(ClassifierConfig(variant("internimage_pico"), **{"num_classes": 3, **wrong}))


def test_without_class_names_the_index_is_the_name() -> None:
    model = Classifier(ClassifierConfig(variant("internimage_pico"), 3, preprocess=ClassificationPreprocess(32)))
    [answer] = model.predict(IMAGES[:1])
    assert answer.name == str(answer.label)
    assert [name for name, _ in answer.top(10)] == [str(int(i)) for i in answer.scores.argsort(descending=True)]
    with pytest.raises(ValueError, match="at least 1"):
        answer.top(0)
    assert answer.to_dict(2)["top"][0] == {"name": answer.name, "score": round(answer.score, 6)}


def test_pooled_vectors_lead_to_the_logits(build: Build) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    for backbone, head in KINDS[:3]:
        model = build(backbone, head).eval()
        torch.testing.assert_close(model.head.classifier(model.pool(pixels)), model(pixels))


def test_activation_checkpointing_and_frozen_stages_change_no_number(build: Build) -> None:
    model = build()
    twin = Classifier(model.config, activation_checkpointing=True, frozen_stages=2, backend="reference")
    twin.load_state_dict(model.state_dict())
    images = model.preprocess(IMAGES)
    targets = torch.arange(5)
    mine, theirs = model.loss(images, targets), twin.loss(images, targets)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    theirs["cross_entropy"].backward()
    trained = {name.split(".")[1] for name, parameter in twin.backbone.named_parameters() if parameter.grad is not None}
    assert trained == {"2", "3"}
