from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.data import Sample
from internimage.data.objects.annotation import ObjectTargets
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.readers.coco import open_coco
from internimage.detection.batches import augment
from internimage.detection.batches.augment import Crop, CropFraction, Flip
from internimage.detection.batches.pipelines import PIPELINES, own_data_pipeline
from internimage.types import RunLengthMasks
from tests.parity import seeding

PARITY = Path(__file__).parents[2] / "parity" / "data"
RECORDED = json.loads(gzip.decompress((PARITY / "training/pipeline_detection.json.gz").read_bytes()))
NAMES = {
    **{"P1": "1x", "P3": "3x", "PCROWD": "3x", "PD": "dino_1x"},
    **{"PL1800": "large_1800", "PL1200": "large_1200", "VOC_effective": "voc"},
}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Draws:
    """Keeps what was drawn, in the form of the recordings."""

    def __init__(self, seed: int) -> None:
        self.source = np.random.RandomState(seed)
        self.seen: list[Any] = []

    def choice(self, number: int, p: Any = None) -> int:
        value = int(self.source.choice(number, p=p))
        self.seen.append(["choice", number, value])
        return value

    def randint(self, *bounds: int) -> int:
        value = int(self.source.randint(*bounds))
        self.seen.append(["randint", list(bounds), value])
        return value


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    root = tmp_path_factory.mktemp("photos")
    for i, photo in enumerate(RECORDED["photos"]):
        pixels = seeding.photo(photo["seed"], photo["height"], photo["width"])
        PIL.Image.fromarray(pixels).save(root / f"{i}.png", compress_level=0)
    (root / "gt.json").write_text(json.dumps(RECORDED["gt"]))
    return open_coco(root / "gt.json", root, broken="raise")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(PARITY / "training/pipeline_detection.npz") as file:
        return dict(file)


@pytest.mark.parametrize("run", RECORDED["runs"], ids=lambda run: run["tag"])
def test_recorded_runs_of_the_original(run: Any, images: DetectionDataset, arrays: dict[str, np.ndarray]) -> None:
    draws: Any = Draws(run["seed"])
    view = augment(images[run["image"]], PIPELINES[NAMES[run["pipeline"]]], draws)
    expected = [[kind, what, rest[-2] if kind == "choice" else rest[0]] for kind, what, *rest in run["draws"]]
    assert draws.seen == expected
    if run["none"]:
        assert view is None
        return
    assert view is not None
    tag = run["tag"]
    height, width = view.pixels.shape[:2]
    assert [height, width, 3] == run["img_shape"]
    assert (view.labels.numpy() == arrays[f"{tag}.labels"]).all()
    assert (view.boxes_xyxy.numpy() == arrays[f"{tag}.boxes"]).all()
    _, padded_h, padded_w = arrays[f"{tag}.img.shape"].tolist()
    y, x, channel, inside = sampled_places((padded_h, padded_w), (height, width), len(arrays[f"{tag}.img.value"]))
    seen = arrays[f"{tag}.img.value"] * np.array(STD)[channel] + np.array(MEAN)[channel]
    given = view.pixels.numpy()[np.minimum(y, height - 1), np.minimum(x, width - 1), channel]
    assert np.abs(seen - given)[inside].max() < 0.01, "pixels are those of OpenCV"
    assert view.original_hw == tuple(run["ori_shape"][:2])
    if f"{tag}.mask_area" in arrays:
        assert view.masks is not None
        assert (view.masks.sum(dim=(1, 2)).numpy() == arrays[f"{tag}.mask_area"]).all()
        every8 = np.zeros((len(view.labels), -(-padded_h // 8), -(-padded_w // 8)), dtype=bool)
        own = view.masks[:, ::8, ::8].numpy()
        every8[:, : own.shape[1], : own.shape[2]] = own
        assert (np.packbits(every8) == arrays[f"{tag}.mask_every8_bits"]).all()


def sampled_places(
    padded_hw: tuple[int, int], size_hw: tuple[int, int], points: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and channel of the recorded samples, and whether they lie in the image."""
    total = 3 * padded_hw[0] * padded_hw[1]
    index = np.unique(np.linspace(0, total - 1, min(1024, total)).astype(np.int64))
    assert len(index) == points
    channel, rest = np.divmod(index, padded_hw[0] * padded_hw[1])
    y, x = np.divmod(rest, padded_hw[1])
    return y, x, channel, (y < size_hw[0]) & (x < size_hw[1])


def sample(boxes: list[list[float]], size_hw: tuple[int, int] = (60, 80)) -> Sample[ObjectTargets]:
    image = np.arange(size_hw[0] * size_hw[1] * 3).reshape(*size_hw, 3) % 251
    counts = []
    for left, top, right, bottom in boxes:
        mask = np.zeros(size_hw, dtype=bool)
        mask[int(top) : int(bottom), int(left) : int(right)] = True
        flat = mask.T.ravel()
        cuts = np.flatnonzero(np.diff(flat, prepend=False))
        counts.append(torch.from_numpy(np.diff(cuts, prepend=0, append=flat.size).astype(np.int64)))
    target = ObjectTargets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(boxes)),
        RunLengthMasks(tuple(counts), size_hw),
        torch.zeros(0, 4),
    )
    return Sample(PIL.Image.fromarray(image.astype(np.uint8)), target, "made")


def test_masks_follow_their_boxes() -> None:
    boxes = [[10.0, 5, 30, 25], [50, 30, 80, 60], [0, 0, 8, 8]]
    pipeline = own_data_pipeline(shorter_side=(30, 120), longer_side=200, smallest_crop=0.5)
    smaller = 0
    for seed in range(40):
        view = augment(sample(boxes), pipeline, np.random.RandomState(seed))
        assert view is not None and view.masks is not None and len(view.labels) >= 1
        smaller += len(view.labels) < 3
        height, width = view.pixels.shape[:2]
        assert 20 <= min(height, width) <= 121 and view.masks.shape == (len(view.labels), height, width)
        for box, mask in zip(view.boxes_xyxy.tolist(), view.masks, strict=True):
            rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(np.array(box) - np.array(seen, dtype=float)).max() <= 2
    assert 5 < smaller < 40, "some crops lose objects"


def test_a_seed_gives_one_view() -> None:
    pipeline = own_data_pipeline(shorter_side=(30, 120), longer_side=200, smallest_crop=0.5)
    first, again, other = (
        augment(sample([[10, 5, 30, 25]]), pipeline, np.random.RandomState(seed)) for seed in (3, 3, 4)
    )
    assert first is not None and again is not None and other is not None
    assert torch.equal(first.pixels, again.pixels) and torch.equal(first.boxes_xyxy, again.boxes_xyxy)
    assert first.pixels.shape != other.pixels.shape


def test_flip_moves_pixels_boxes_and_masks_alike() -> None:
    given = sample([[10, 5, 30, 25]])
    view = augment(given, (Flip(1.0),), np.random.RandomState(0))
    assert view is not None and view.masks is not None and given.target.masks is not None
    assert view.boxes_xyxy.tolist() == [[50, 5, 70, 25]]
    assert (view.pixels.numpy() == np.array(given.image)[:, ::-1]).all()
    assert torch.equal(view.masks, given.target.masks.to_bool().flip(2))


def test_crops_without_objects() -> None:
    far = sample([[70, 50, 80, 60]])
    rejected = [augment(far, (Crop(10, 20, False),), np.random.RandomState(seed)) for seed in range(30)]
    assert any(view is None for view in rejected)
    empty = [augment(far, (Crop(10, 20, True),), np.random.RandomState(seed)) for seed in range(30)]
    assert all(view is not None for view in empty) and any(view is not None and not len(view.labels) for view in empty)
    for seed in range(30):
        view = augment(far, (CropFraction(0.2),), np.random.RandomState(seed))
        assert view is not None and len(view.labels) == 1
    nothing = augment(sample([]), (CropFraction(0.2), Flip()), np.random.RandomState(0))
    assert nothing is not None and nothing.boxes_xyxy.shape == (0, 4)


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match=r"shorter_side\[0\]"):
        own_data_pipeline(shorter_side=(300, 200), longer_side=400)
    with pytest.raises(ValueError, match="flip must lie"):
        own_data_pipeline(shorter_side=(200, 200), longer_side=400, flip=2)
    with pytest.raises(ValueError, match="smallest must lie"):
        own_data_pipeline(shorter_side=(200, 200), longer_side=400, smallest_crop=0.0)
