from __future__ import annotations

import datetime
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.classification import Classifier
from internimage.classification.batches.augment import batch_mixer, crop_transform, keep_black, shift_batch
from internimage.classification.loss import classification_loss
from internimage.classification.preprocess import ClassificationPreprocess, Observation, encode_observation, prepare
from internimage.classification.training.batches import load_resized, train_batches
from internimage.classification.training.procedure import TRAINING
from internimage.classification.training.recipe import AugmentSettings
from internimage.data import ImageFolder, open_dataset
from internimage.data.labeled_files import LabeledFiles
from internimage.data.randomness import derived_seed, seeded
from internimage.parallel import own_rows
from internimage.training import RECIPES
from tests.parity.seeding import photo, uniform
from tests.processes import be_process

PICO = RECIPES["internimage_pico_fashion"].with_overrides(["data.batch_size=8"])
SIZE_32 = ClassificationPreprocess(size=32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(12):
        path = tmp_path / f"train/{i % 3}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(photo(i, 40, 50)).save(path)
    return tmp_path


def test_losses_equal_the_original(recorded: Any) -> None:
    logits = torch.from_numpy(recorded["loss.logits"]).requires_grad_()
    labels = torch.from_numpy(recorded["loss.labels"])
    for name, smoothing in (("smooth0.1", 0.1), ("smooth0.3", 0.3), ("ce", 0.0)):
        loss = classification_loss(logits, labels, label_smoothing=smoothing)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(float(recorded[f"loss.{name}"]), rel=1e-6)
        torch.testing.assert_close(gradient, torch.from_numpy(recorded[f"loss.{name}.grad"]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5])
def test_mixing_equals_the_original(recorded: Any, seed: int) -> None:
    pytest.importorskip("timm")
    mix = batch_mixer(AugmentSettings(), num_classes=10, label_smoothing=0.1)
    assert mix is not None
    pixels = torch.from_numpy(uniform(seed, "mix", (4, 3, 16, 20)).astype(np.float32))
    kept = pixels.clone()
    mixed, targets = mix(pixels, torch.from_numpy(recorded[f"mix.recipe.{seed}.labels"]), seed)
    index = np.unique(np.linspace(0, mixed.numel() - 1, 300).astype(np.int64))
    torch.testing.assert_close(mixed.flatten()[index], torch.from_numpy(recorded[f"mix.recipe.{seed}.image"]))
    torch.testing.assert_close(targets, torch.from_numpy(recorded[f"mix.recipe.{seed}.target"]))
    assert torch.equal(pixels, kept)


def test_cutmix_box() -> None:
    """The recorded box is rows 3..13, columns 1..13 of a cut 13 wide; later releases of timm keep the odd column."""
    pytest.importorskip("timm")
    mix = batch_mixer(AugmentSettings(), num_classes=10, label_smoothing=0.0)
    assert mix is not None
    pixels = torch.from_numpy(uniform(2, "mix", (4, 3, 16, 20)).astype(np.float32))
    mixed, targets = mix(pixels, torch.tensor([0, 1, 2, 3]), 2)
    expected = pixels.clone()
    expected[:, :, 3:13, 1:14] = pixels.flip(0)[:, :, 3:13, 1:14]
    assert torch.equal(mixed, expected)
    assert targets[0].tolist() == pytest.approx([1 - 130 / 320, 0, 0, 130 / 320, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_training_transform_equals_the_original(recorded: Any, seed: int) -> None:
    pytest.importorskip("timm")
    transform = crop_transform(AugmentSettings(erase_probability=0.6), ClassificationPreprocess(size=64))
    with seeded(seed):
        pixels = transform(PIL.Image.fromarray(photo(21, 101, 139)))
    values = pixels.flatten()[torch.from_numpy(recorded[f"train.{seed}.final.index"])]
    torch.testing.assert_close(values, torch.from_numpy(recorded[f"train.{seed}.final.value"]), rtol=1e-5, atol=1e-5)


def test_shifted_batches_are_moved_and_mirrored_images(tiny_fashion: Path) -> None:
    pixels, _, _ = load_resized(open_dataset(tiny_fashion, "val"), SIZE_32, max_unreadable=0)
    assert pixels.shape == (24, 1, 32, 32) and pixels.dtype == torch.uint8
    plain = AugmentSettings(kind="shift", shift_pixels=0, horizontal_flip=0, erase_probability=0, rand_augment="")
    images = [open_dataset(tiny_fashion, "val")[i].image for i in range(24)]
    expected = prepare(images, SIZE_32).pixels
    torch.testing.assert_close(shift_batch(pixels, plain, SIZE_32, 1), expected, rtol=1e-5, atol=1e-6)
    mirrored = shift_batch(pixels, AugmentSettings("shift", (1, 1), 0, 1.0, "", 0.0), SIZE_32, 1)
    torch.testing.assert_close(mirrored, expected.flip(3), rtol=1e-5, atol=1e-6)
    moved = shift_batch(pixels, AugmentSettings("shift", (1, 1), 3, 0.0, "", 0.0), SIZE_32, 1)
    black = (0 - torch.tensor(SIZE_32.mean)) / torch.tensor(SIZE_32.std)
    padded = torch.nn.functional.pad(expected - black.view(3, 1, 1), (3, 3, 3, 3)) + black.view(3, 1, 1)
    found = set()
    for i in range(24):
        windows = {(y, x): padded[i, :, y : y + 32, x : x + 32] for y in range(7) for x in range(7)}
        matches = [at for at, window in windows.items() if torch.allclose(window, moved[i], atol=1e-5)]
        assert matches
        found.add(matches[0])
    assert len(found) > 5


def test_erasing_touches_the_chosen_share() -> None:
    pixels = torch.zeros(400, 1, 16, 16, dtype=torch.uint8)
    erased = shift_batch(
        pixels, AugmentSettings("shift", (1, 1), 0, 0.0, "", 0.25), ClassificationPreprocess(size=16), 0
    )
    changed = (erased != erased[:, :, :1, :1]).flatten(1).any(1)
    assert 60 < int(changed.sum()) < 140


def test_batches_follow_from_seed_epoch_and_position(tiny_fashion: Path) -> None:
    batches = train_batches(open_dataset(tiny_fashion, "train"), PICO, SIZE_32)
    assert batches.batches_per_epoch == 9
    first = list(batches.epoch(2))
    torch.rand(3)
    rest = list(batches.epoch(2, start=6))
    assert len(first) == 9 and len(rest) == 3
    for a, b in zip(first[6:], rest, strict=True):
        assert torch.equal(a.pixels, b.pixels) and torch.equal(a.targets, b.targets)
    other = next(iter(batches.epoch(3)))
    assert not torch.equal(first[0].pixels, other.pixels)
    assert sorted(batches.order(0).flatten()) == list(range(72))


@pytest.mark.parametrize("kind", ["shift", "crop"])
def test_processes_share_the_batches_of_one(tiny_fashion: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Each image is varied and mixed as in the whole batch of a single process."""
    pytest.importorskip("timm")
    dataset = open_dataset(tiny_fashion, "train")
    mixing = ("augment.mixup=0.8", "augment.cutmix=1", "data.workers=0", f"augment.kind={kind}")
    whole = list(train_batches(dataset, PICO.with_overrides([*mixing, "data.batch_size=24"]), SIZE_32).epoch(1))
    for rank in range(3):
        be_process(monkeypatch, rank, of=3)
        own = train_batches(dataset, PICO.with_overrides([*mixing, "data.batch_size=8"]), SIZE_32)
        rows = own_rows(8)
        for batch, expected in zip(own.epoch(1), whole, strict=True):
            assert torch.equal(batch.pixels, expected.pixels[rows])
            assert torch.equal(batch.targets, expected.targets[rows])


def test_processes_share_an_epoch(tiny_fashion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, orders = open_dataset(tiny_fashion, "train"), []
    for rank in range(3):
        be_process(monkeypatch, rank, of=3)
        orders.append(train_batches(dataset, PICO, SIZE_32).order(1))
    assert sorted(np.concatenate(orders).flatten()) == list(range(72))


def test_crops_do_not_depend_on_the_number_of_workers(images: Path) -> None:
    pytest.importorskip("timm")
    recipe = RECIPES["internimage_t_1k_224"].with_overrides(["data.batch_size=4", "data.workers=0"])
    dataset = open_dataset(images, "train")
    here = list(train_batches(dataset, recipe, SIZE_32).epoch(0))
    there = list(train_batches(dataset, recipe.with_overrides(["data.workers=1"]), SIZE_32).epoch(0, start=1))
    assert len(here) == 3 and here[0].targets.shape == (4, 3)
    for a, b in zip(here[1:], there, strict=True):
        assert torch.equal(a.pixels, b.pixels) and torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("kind", ["crop", "shift"])
def test_broken_images_are_reported_and_limited(images: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    pytest.importorskip("timm")
    for name in ("0/0.png", "1/4.png"):
        (images / "train" / name).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    overrides = ["data.workers=0", "data.batch_size=2", "augment.rand_augment=", f"augment.kind={kind}"]
    recipe = RECIPES["internimage_t_1k_224"].with_overrides([*overrides, "data.max_unreadable=2"])
    dataset = ImageFolder(images / "train")
    with caplog.at_level(logging.WARNING):
        batches = list(train_batches(dataset, recipe, SIZE_32).epoch(0))
    assert len(batches) == (6 if kind == "crop" else 5)
    assert sorted(name for name in ("0.png", "4.png") if name in caplog.text) == ["0.png", "4.png"]
    assert len(caplog.records) == 2
    with pytest.raises(ValueError, match=r"more than 1 training images"):
        list(train_batches(dataset, recipe.with_overrides(["data.max_unreadable=1"]), SIZE_32).epoch(0))


def test_too_few_images_for_one_step(tiny_fashion: Path) -> None:
    recipe = PICO.with_overrides(["data.batch_size=64", "optimizer.accumulation_steps=2"])
    with pytest.raises(ValueError, match="72 training images do not fill one step of 1 x 64 x 2"):
        train_batches(open_dataset(tiny_fashion, "train"), recipe, SIZE_32)


def test_seeded_restores_the_generators() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    with seeded(5):
        drawn = torch.rand(2), np.random.rand()
    with seeded(5):
        assert torch.equal(torch.rand(2), drawn[0]) and np.random.rand() == drawn[1]
    assert torch.equal(torch.get_rng_state(), torch_state) and (np.random.get_state()[1] == numpy_state).all()
    assert derived_seed(1, 2, 3) != derived_seed(1, 3, 2)


def test_crops_have_the_numbers_of_the_published_transforms() -> None:
    """Fewer passes over the pixels, bit for bit the same; a posterized image of no bits is black in every Pillow."""
    from timm.data.transforms_factory import create_transform

    settings, preprocess = AugmentSettings(erase_probability=0.5), ClassificationPreprocess(size=32)
    ours = crop_transform(settings, preprocess)
    published: Any = create_transform(
        32,
        is_training=True,
        color_jitter=0.0,
        auto_augment=settings.rand_augment,
        interpolation="bicubic",
        re_prob=0.5,
        re_mode="pixel",
    )
    keep_black(published.transforms)
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    for seed in range(60):
        with seeded(seed):
            expected = published(image)
        with seeded(seed):
            assert torch.equal(ours(image), expected)


def test_no_bit_of_an_image_is_black() -> None:
    steps = crop_transform(AugmentSettings(rand_augment="rand-m10-mstd0-inc1-n1-p1"), ClassificationPreprocess(size=32))
    [augment] = [step for step in steps._steps if hasattr(step, "ops")]  # pyright: ignore[reportAttributeAccessIssue]
    [operation] = [operation for operation in augment.ops if operation.name == "PosterizeIncreasing"]
    operation.prob = 1.0
    image = PIL.Image.new("RGB", (8, 6), (200, 100, 50))
    assert operation(image).getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("kind", ["crop", "shift"])
def test_date_and_place_reach_the_model(images: Path, kind: str) -> None:
    files = sorted((images / "train").rglob("*.png"))
    known = [Observation(datetime.date(2018, 1 + i, 1), 5.0 * i, -5.0) if i % 4 else None for i in range(len(files))]
    dataset = LabeledFiles(images, [(file, i % 3) for i, file in enumerate(files)], ("a", "b", "c"), known)
    overrides = [
        f"augment.kind={kind}",
        "augment.rand_augment=",
        "data.batch_size=4",
        "model.head=attention_pool_metadata",
    ]
    recipe = PICO.with_overrides(overrides)
    batches = train_batches(dataset, recipe, SIZE_32)
    for indices, batch in zip(batches.order(1), batches.epoch(1), strict=True):
        assert batch.metadata is not None
        assert torch.equal(batch.metadata, encode_observation([known[i] for i in indices]))
    torch.manual_seed(0)
    model = Classifier(replace(recipe.model.config, num_classes=3))
    first = next(batches.epoch(0))
    with torch.no_grad():
        model.head.get_submodule("classifier").weight.normal_()
    losses = [
        TRAINING.loss(recipe, model.eval(), batch, torch.device("cpu"))["cross_entropy"]
        for batch in (first, replace(first, metadata=None))
    ]
    assert losses[0] != losses[1]
    with pytest.raises(ValueError, match=r"no date and no place.*set augment\.mixup=0 and augment\.cutmix=0"):
        recipe.with_overrides(["augment.mixup=0.8"])
