from __future__ import annotations

import gzip
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from internimage.data import Sample
from internimage.data.objects.annotation import ObjectTargets
from internimage.data.readers.coco import open_coco
from internimage.detection.batches.augment import Flip, TrainingView
from internimage.detection.batches.grouping import (
    class_balanced,
    endless_batches,
    epoch_batches,
    orientations,
    repeat_factors,
)
from internimage.detection.batches.loading import TrainingViews, collate
from internimage.detection.batches.pipelines import own_data_pipeline

PARITY = Path(__file__).parents[2] / "parity/data/training"
RECORDED = json.loads(gzip.decompress((PARITY / "samplers_detection.json.gz").read_bytes()))


def test_epochs_equal_the_recorded_ones() -> None:
    case = RECORDED["mmdet_DistributedGroupSampler"]
    assert len(case["runs"]) >= 8
    for run in case["runs"]:
        batches = epoch_batches(
            np.array(case["flag"]),
            batch_size=run["samples_per_gpu"],
            **{key: run[key] for key in ("seed", "epoch", "rank", "world")},
        )
        assert batches.ravel().tolist() == run["indices"]


def test_endless_batches_equal_the_recorded_ones() -> None:
    case = RECORDED["mmdet_InfiniteGroupBatchSampler"]
    assert len(case["runs"]) >= 4
    for run in case["runs"]:
        options: dict[str, int] = {key: run[key] for key in ("seed", "rank", "world", "batch_size")}
        expected = run["first_batches"]
        batches = itertools.islice(endless_batches(np.array(case["flag"]), **options), len(expected))
        assert [batch.tolist() for batch in batches] == expected
        later = itertools.islice(endless_batches(np.array(case["flag"]), start=7, **options), len(expected) - 7)
        assert [batch.tolist() for batch in later] == expected[7:], "a resumed run"


def test_repeat_factors_equal_the_recorded_ones() -> None:
    case = RECORDED["mmdet_ClassBalancedDataset"]
    for run in case["runs"]:
        factors = repeat_factors(case["categories_per_image"], run["oversample_thr"])
        np.testing.assert_allclose(factors, run["repeat_factors"], rtol=1e-12)
        indices = np.repeat(np.arange(len(factors)), np.ceil(factors).astype(int))
        assert indices.tolist() == run["repeat_indices"]


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (4, 1), (3, 2), (16, 4)])
def test_every_image_is_seen_and_no_batch_is_mixed(batch_size: int, world: int) -> None:
    groups = np.random.default_rng(0).integers(0, 2, 37)
    parts = [
        epoch_batches(groups, batch_size=batch_size, seed=1, epoch=2, rank=rank, world=world) for rank in range(world)
    ]
    assert len({part.shape for part in parts}) == 1
    batches = np.concatenate(parts)
    assert set(batches.ravel().tolist()) == set(range(37))
    assert (groups[batches] == groups[batches][:, :1]).all()
    other = epoch_batches(groups, batch_size=batch_size, seed=1, epoch=3, rank=0, world=world)
    assert (other != parts[0]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(groups=np.zeros(0, dtype=int)), "at least one image"),
        (dict(batch_size=0), "batch_size"),
        (dict(rank=2), r"rank must lie in 0\.\.1"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = dict(groups=np.zeros(4, dtype=int), batch_size=2, seed=0, rank=0, world=2) | change
    with pytest.raises(ValueError, match=message):
        epoch_batches(epoch=0, **options)
    with pytest.raises(ValueError, match=message):
        endless_batches(**options)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    images, annotations = [], []
    for i, (width, height) in enumerate([(80, 60), (60, 80), (70, 70), (90, 60)]):
        PIL.Image.new("RGB", (width, height), (50 * i, 10, 10)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        annotations.append({"id": i, "image_id": i, "category_id": i // 3, "bbox": [5, 5, 20, 30]})
    categories = [{"id": 0, "name": "common"}, {"id": 1, "name": "rare"}]
    (tmp_path / "a.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return tmp_path


def test_orientations_and_balance(coco: Path) -> None:
    dataset = open_coco(coco / "a.json", coco)
    assert orientations(dataset).tolist() == [1, 0, 0, 1]
    balanced = class_balanced(dataset, threshold=0.6)
    assert [balanced.file(i).stem for i in range(len(balanced))] == ["0", "1", "2", "3", "3"]
    assert len(class_balanced(dataset)) == 4


def test_views_depend_on_seed_visit_and_image(coco: Path) -> None:
    pipeline = own_data_pipeline(shorter_side=(30, 200), longer_side=300)
    dataset = open_coco(coco / "a.json", coco)
    views = TrainingViews(dataset, pipeline, seed=5)
    first = views[(0, 1)]
    assert torch.equal(views[(0, 1)].view.pixels, first.view.pixels) and first.unreadable == ()
    assert views[(1, 1)].view.pixels.shape != first.view.pixels.shape
    assert TrainingViews(dataset, pipeline, seed=6)[(0, 1)].view.pixels.shape != first.view.pixels.shape


def test_broken_and_rejected_images_are_replaced_by_their_like(coco: Path) -> None:
    dataset = open_coco(coco / "a.json", coco)
    groups = orientations(dataset)
    (coco / "0.png").write_bytes(b"no image")
    drawn = TrainingViews(dataset, (Flip(),), seed=0, groups=groups)[(0, 0)]
    assert drawn.view.name.endswith("3.png") and len(drawn.unreadable) >= 1
    assert all("0.png" in entry.reason for entry in drawn.unreadable)

    class Picky:
        def __call__(self, frame: Any, rng: Any) -> Any:
            return None if frame.size_hw == (80, 60) else frame

    drawn = TrainingViews(dataset, (Picky(),), seed=0, groups=groups)[(0, 1)]
    assert drawn.view.name.endswith("2.png") and drawn.unreadable == ()
    with pytest.raises(ValueError, match="rejects every image"):
        TrainingViews(dataset.select([1]), (Picky(),), seed=0)[(0, 0)]
    with pytest.raises(ValueError, match="groups of 4 images"):
        TrainingViews(dataset, (), seed=0, groups=groups[:2])


def view(height: int, width: int, objects: int, with_masks: bool) -> TrainingView:
    masks = torch.ones(objects, height, width, dtype=torch.bool) if with_masks else None
    pixels = torch.full((height, width, 3), 200, dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, width, height]]).repeat(objects, 1)
    return TrainingView(pixels, boxes, torch.arange(objects), masks, (10, 20), "made")


def halve(pixels: Tensor) -> Tensor:
    return pixels.float() / 2


@pytest.mark.parametrize("with_masks", [True, False])
def test_collate(with_masks: bool) -> None:
    images, targets = collate([view(33, 50, 2, with_masks), view(64, 20, 0, with_masks)], normalize=halve)
    assert images.pixels.shape == (2, 3, 64, 64) and images.pixels.is_contiguous(memory_format=torch.channels_last)
    assert images.valid_hw.tolist() == [[33, 50], [64, 20]] and images.original_hw == ((10, 20), (10, 20))
    assert (images.pixels[0, :, :33, :50] == 100).all() and float(images.pixels.sum()) == 300 * (33 * 50 + 64 * 20)
    assert [len(target) for target in targets] == [2, 0]
    if with_masks:
        assert targets[0].masks is not None and targets[0].masks.shape == (2, 64, 64)
        assert targets[0].masks.sum().item() == 2 * 33 * 50 and targets[0].masks[:, :33, :50].all()
        assert targets[1].masks is not None and targets[1].masks.shape == (0, 64, 64)
    else:
        assert targets[0].masks is None
    assert collate([view(33, 50, 2, with_masks)], normalize=halve, divisor=1)[0].pixels.shape == (1, 3, 33, 50)


def test_views_travel_to_worker_processes(coco: Path) -> None:
    dataset = open_coco(coco / "a.json", coco)
    views = TrainingViews(dataset, own_data_pipeline(shorter_side=(30, 60), longer_side=90), seed=0)
    sent: TrainingViews = pickle.loads(pickle.dumps(views))
    for row in epoch_batches(orientations(dataset), batch_size=2, seed=0, epoch=0):
        here, there = (collate([own[(0, int(i))].view for i in row], normalize=halve)[0] for own in (views, sent))
        assert torch.equal(here.pixels, there.pixels)


def test_samples_are_typed(coco: Path) -> None:
    sample: Sample[ObjectTargets] = open_coco(coco / "a.json", coco)[0]
    assert sample.target.masks is None and sample.target.ignored_boxes_xyxy.shape == (0, 4)
