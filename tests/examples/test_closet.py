from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from examples.closet import Closet, label_map, write_closet, write_crops
from examples.closet.garments import garment_mask, turned
from examples.closet.scenes import LONG_SIDE, MIN_VISIBLE


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def opened(path: Path) -> PIL.Image.Image:
    with PIL.Image.open(path) as image:
        return image.copy()


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fashion")
    images = np.zeros((10, 28, 28), dtype=np.uint8)
    for i in range(10):
        images[i, 2:26, 8 - i // 2 : 20 + i // 2] = 100 + 10 * i
    for part, shift in (("train", 0), ("t10k", 50)):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(np.where(images > 0, images + shift, 0)))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(10)))
    return root


@pytest.fixture(scope="module")
def written(fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "closet"
    steps: list[tuple[int, int]] = []
    write_closet(
        out,
        fashion_mnist=fashion,
        train_scenes=6,
        val_scenes=3,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(i, 9) for i in range(1, 10)]
    return out


def test_masks_are_cleaned() -> None:
    gray = np.zeros((28, 28), dtype=np.uint8)
    gray[4:24, 6:20] = 90
    gray[10:12, 10:13] = 0  # a dark spot of the garment
    gray[1:3, 26] = 200  # a speck beside it
    expected = np.zeros_like(gray, dtype=bool)
    expected[4:24, 6:20] = True
    assert (garment_mask(gray) == expected).all()
    assert garment_mask(np.zeros_like(gray)).all(), "a black image still gives a garment"
    gray[8:18, 8:18] = 0  # a real hole, such as that of a bag's handle, stays open
    assert not garment_mask(gray)[12, 12]


def test_turned_garments_have_the_size_asked_for() -> None:
    gray = np.zeros((28, 28), dtype=np.uint8)
    gray[4:24, 6:16] = 90
    shade, soft, scale = turned(gray, gray > 0, 60.0, 0.0)
    assert soft.shape == (60, 30) and scale == 3.0
    assert abs(int((soft >= 0.5).sum()) - 60 * 30) < 20 and np.allclose(shade, 90, atol=1)
    _, soft, _ = turned(gray, gray > 0, 60.0, np.pi / 2)
    assert soft.shape == (30, 60)
    _, soft, _ = turned(gray, gray > 0, 80.0, 0.5)
    rows, columns = (np.flatnonzero((soft >= 0.5).any(axis=axis)) for axis in (1, 0))
    assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - 80) <= 2


def test_scenes_depend_on_seed_split_and_number_alone(fashion: Path) -> None:
    closet = Closet(fashion, "train", seed=3)
    scene = closet.scene(5)
    closet.scene(0)
    assert (closet.scene(5).image == scene.image).all()
    for other in (Closet(fashion, "train", seed=4), Closet(fashion, "val", seed=3)):
        assert (other.scene(5).image != scene.image).any()


def test_every_garment_is_seen(fashion: Path) -> None:
    closet = Closet(fashion, "val", size_hw=(96, 160))
    for index in range(20):
        scene = closet.scene(index)
        assert scene.image.shape == (96, 160, 3) and 2 <= len(scene.labels) <= 5
        areas = np.bincount(scene.owner[scene.owner >= 0], minlength=len(scene.labels))
        smallest_full = 0.5 * (96 * LONG_SIDE[0]) ** 2 * 0.3
        assert (areas > MIN_VISIBLE * smallest_full).all()
        assert set(np.unique(label_map(scene))) == {0, *(label + 1 for label in scene.labels)}


def test_files(written: Path) -> None:
    assert (written / "classes.txt").read_text().splitlines()[:2] == ["background", "T-shirt/top"]
    for split, number in (("train", 6), ("val", 3)):
        document = json.loads((written / f"annotations/{split}.json").read_text())
        assert [c["id"] for c in document["categories"]] == list(range(1, 11))
        assert len(document["images"]) == number
        for listed in document["images"]:
            own = [a for a in document["annotations"] if a["image_id"] == listed["id"]]
            image = opened(written / split / listed["file_name"])
            labels = np.asarray(opened((written / "labels" / split / listed["file_name"]).with_suffix(".png")))
            assert image.size == (listed["width"], listed["height"]) and image.mode == "RGB"
            assert 2 <= len(own) <= 5
            assert sum(a["area"] for a in own) == (labels > 0).sum(), "garments do not share pixels"
            for entry in own:
                left, top, width, height = entry["bbox"]
                inside = labels[top : top + height, left : left + width] == entry["category_id"]
                assert entry["area"] <= inside.sum()


def test_an_unfinished_data_set_leaves_nothing(fashion: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_closet(tmp_path / "closet", fashion_mnist=fashion, train_scenes=2, val_scenes=0, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(fashion: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        write_closet(tmp_path, fashion_mnist=fashion)
    with pytest.raises(ValueError, match="64 pixels"):
        Closet(fashion, "val", size_hw=(32, 192))
    with pytest.raises(ValueError, match="train, val"):
        Closet(fashion, "test")
    with pytest.raises(ValueError, match="holds no photographs"):
        Closet(fashion, "val", photos=tmp_path)
    with pytest.raises(FileNotFoundError):
        Closet(tmp_path, "val")


def test_own_photographs_join(fashion: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (400, 300), (10, 200, 30)).save(tmp_path / "green.png")
    assert len(Closet(fashion, "val", photos=tmp_path).photographs) == len(Closet(fashion, "val").photographs) + 1


def test_crops(fashion: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    write_crops(
        tmp_path / "crops", fashion_mnist=fashion, train_scenes=8, val_scenes=2, progress=lambda d, _: steps.append(d)
    )
    assert steps == list(range(1, 11))
    for split, closet in ((s, Closet(fashion, s, seed=1)) for s in ("train", "val")):
        folders = sorted(path.name for path in (tmp_path / "crops" / split).iterdir())
        assert len(folders) == 10 and "t-shirt-top" in folders
        for index in range(2):
            scene = closet.scene(index)
            found = sorted((tmp_path / "crops" / split).glob(f"*/{index:06d}_*.jpg"), key=lambda path: path.stem)
            assert len(found) == len(scene.labels)
            for path in found:
                image = opened(path)
                assert image.width == image.height >= 20
    with pytest.raises(ValueError, match="at least one scene"):
        write_crops(tmp_path / "none", fashion_mnist=fashion, train_scenes=0)
    with pytest.raises(FileExistsError, match="not empty"):
        write_crops(tmp_path / "crops", fashion_mnist=fashion)


def test_the_script_runs_from_any_folder(fashion: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "make_closet.py"
    settings = ["--train-scenes", "1", "--val-scenes", "1", "--size", "96"]
    words = [sys.executable, str(script), "--fashion-mnist", str(fashion), "--out", "made", *settings]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert opened(tmp_path / "made" / "train" / "000000.jpg").size == (96, 96)
