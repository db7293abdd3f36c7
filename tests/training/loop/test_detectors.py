from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from internimage import parallel
from internimage.detection import DINOConfig, RCNNConfig
from internimage.detection.training.batches import DetectionBatches
from internimage.detection.training.procedure import TRAINING
from internimage.training import train
from internimage.training.setup import Setup
from tests.processes import be_process
from tests.training.scenes import scene_recipe as tiny


def test_dino_learns_boxes_by_iterations(scenes: Path, tmp_path: Path) -> None:
    overrides = ("schedule.epochs=0", "schedule.iterations=3", "schedule.validate_every=2", "run.precision=bf16")
    result = train(tiny("dino", *overrides), data=scenes, out=tmp_path, progress=False)
    assert result.metric == "val_box_ap"
    assert [row["step"] for row in result.history] == [2, 3]
    assert "val_mask_ap" not in result.history[0]


@pytest.mark.parametrize("schedule", [(), ("schedule.epochs=0", "schedule.iterations=20")])
def test_batches_start_anywhere(scenes: Path, schedule: tuple[str, ...]) -> None:
    chosen = tiny("mask_rcnn", *schedule)
    train_set, _ = TRAINING.open(chosen, scenes, test_stands_in=False)
    batches = DetectionBatches(train_set, chosen, masks=True)
    assert batches.batches_per_epoch == 4
    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, start=3))
    assert (len(whole), len(rest)) == (4, 1)
    assert torch.equal(whole[3].images.pixels, rest[0].images.pixels)
    for a, b in zip(whole[3].targets, rest[0].targets, strict=True):
        assert torch.equal(a.boxes_xyxy, b.boxes_xyxy) and a.masks is not None and b.masks is not None
        assert torch.equal(a.masks, b.masks)
    other = next(batches.epoch(2))
    assert whole[0].images.pixels.shape != other.images.pixels.shape or not torch.equal(
        whole[0].images.pixels, other.images.pixels
    )


def test_processes_pad_as_the_whole_batch(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of all sizes: what two processes have is, put together, the batch of one."""
    sizes = ("augment.shorter_side=24,120", "augment.longer_side=120")
    chosen = tiny("mask_rcnn", *sizes, "data.batch_size=2")
    train_set, _ = TRAINING.open(chosen, scenes, test_stands_in=False)
    whole = list(DetectionBatches(train_set, tiny("mask_rcnn", *sizes, "data.batch_size=4"), masks=True).epoch(0))
    largest = [tuple(batch.images.pixels.shape[-2:]) for batch in whole]
    own_sizes = set()
    for rank in (0, 1):
        be_process(monkeypatch, rank, of=2)
        rows, answers = parallel.own_rows(2), iter(largest)

        def answer(own: torch.Size, rank: int = rank, answers: Iterator[tuple[int, ...]] = answers) -> tuple[int, ...]:
            own_sizes.add((rank, *own))
            return next(answers)

        monkeypatch.setattr(parallel, "largest", answer)
        for batch, expected in zip(DetectionBatches(train_set, chosen, masks=True).epoch(0), whole, strict=True):
            assert torch.equal(batch.images.pixels, expected.images.pixels[rows])
            assert batch.images.pixels.stride() == expected.images.pixels[rows].stride()
            assert torch.equal(batch.images.valid_hw, expected.images.valid_hw[rows])
            for target, other in zip(batch.targets, (expected.targets[row] for row in rows), strict=True):
                assert target.masks is not None and other.masks is not None and torch.equal(target.masks, other.masks)
                assert torch.equal(target.boxes_xyxy, other.boxes_xyxy)
    assert {own[1:] for own in own_sizes} != set(largest)


def test_detectors_of_boxes_read_no_masks(scenes: Path) -> None:
    chosen = tiny("mask_rcnn")
    train_set, _ = TRAINING.open(chosen, scenes, test_stands_in=False)
    batch = next(DetectionBatches(train_set, chosen, masks=False).epoch(0))
    assert all(target.masks is None for target in batch.targets)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_are_left_out_up_to_a_limit(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    (data / "train" / "3.png").write_bytes(b"no image")
    settings = ("data.max_unreadable=1", f"data.workers={workers}")
    assert len(list(Setup(tiny("dino", *settings), data).epoch(0))) == 4
    assert caplog.text.count("left out an image") == 1 and "3.png" in caplog.text
    with pytest.raises(ValueError, match=r"more than 0 training images.*3\.png"):
        list(Setup(tiny("dino", *settings, "max_unreadable=0"), data).epoch(0))


def test_holdout_validates_on_training_images(scenes: Path) -> None:
    held = tiny("dino", "data.holdout=3")
    train_set, val_set = TRAINING.divided(held, *TRAINING.open(held, scenes, test_stands_in=False))
    files = [{part.file(i) for i in range(len(part))} for part in (train_set, val_set)]
    assert [len(part) for part in files] == [5, 3] and not files[0] & files[1]
    balanced = tiny("dino", "data.balance_threshold=1.0")
    repeated, _ = TRAINING.divided(balanced, *TRAINING.open(balanced, scenes, test_stands_in=False))
    assert len(repeated) > 8


def test_the_number_of_classes_is_checked(scenes: Path) -> None:
    with pytest.raises(ValueError, match=r"num_classes is 5, but the data set has 3 classes \(red, green, blue\)"):
        Setup(tiny("dino", "num_classes=5"), scenes)
    assert Setup(tiny("dino", "num_classes=3"), scenes).model.config.num_classes == 3


def test_masks_need_annotations_with_masks(scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    for split in ("train", "val"):
        file = data / "annotations" / f"{split}.json"
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            del entry["segmentation"]
        file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has no masks.*learn_masks=false.*faster_rcnn"):
        Setup(tiny("mask_rcnn", "learn_masks=true"), data)
    task = Setup(tiny("mask_rcnn"), data)  # of the same size as its sister with masks, but for the mask head
    with_masks = Setup(tiny("mask_rcnn"), scenes)
    assert isinstance(task.model.config, RCNNConfig) and isinstance(with_masks.model.config, RCNNConfig)
    assert task.metric == "val_box_ap" and task.recipe.value("model.learn_masks") is False
    assert task.model.config == dataclasses.replace(with_masks.model.config, mask=None)
    assert with_masks.model.config.mask is not None
    assert Setup(tiny("mask_rcnn", "architecture=faster_rcnn"), data).metric == "val_box_ap"


def test_a_folder_without_data_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="COCO"):
        Setup(tiny("dino"), tmp_path)


def test_settings_of_the_model_reach_the_detector(scenes: Path) -> None:
    dino = Setup(tiny("dino", "max_per_image=7", "denoising_queries=9", "feedforward_slices=2"), scenes).model
    assert isinstance(dino.config, DINOConfig)
    assert (dino.config.max_per_image, dino.config.kind, dino.config.denoising.num_queries) == (7, "dino_sliced", 9)
    overrides = ("frozen_stages=1", "through_dcnv4=true", "drop_path_rate=0.3")
    model = Setup(tiny("mask_rcnn", *overrides), scenes).model
    assert isinstance(model.config, RCNNConfig) and model.config.backbone.drop_path_rate == 0.3
    assert model.config.backbone.operator == "dcnv3_through_dcnv4"
    assert not any(p.requires_grad for p in model.backbone.levels[0].parameters())  # type: ignore[index]
