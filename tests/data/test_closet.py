from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data.closet import Closet, label_map, write_closet, write_crops
from internimage.data.closet.garments import garment_mask, turned
from internimage.data.closet.scenes import LONG_SIDE, MIN_VISIBLE
from internimage.data.pictures import read_picture

pytest.importorskip("skimage")


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fashion")
    pictures = np.zeros((10, 28, 28), dtype=np.uint8)
    for i in range(10):
        pictures[i, 2:26, 8 - i // 2 : 20 + i // 2] = 100 + 10 * i
    for part, shift in (("train", 0), ("t10k", 50)):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(np.where(pictures > 0, pictures + shift, 0)))
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
    grey = np.zeros((28, 28), dtype=np.uint8)
    grey[4:24, 6:20] = 90
    grey[10:12, 10:13] = 0  # a dark spot of the garment
    grey[1:3, 26] = 200  # a speck beside it
    expected = np.zeros_like(grey, dtype=bool)
    expected[4:24, 6:20] = True
    assert (garment_mask(grey) == expected).all()
    assert garment_mask(np.zeros_like(grey)).all(), "a black picture still gives a garment"
    grey[8:18, 8:18] = 0  # a real hole, such as that of a bag's handle, stays open
    assert not garment_mask(grey)[12, 12]


def test_turned_garments_have_the_size_asked_for() -> None:
    grey = np.zeros((28, 28), dtype=np.uint8)
    grey[4:24, 6:16] = 90
    shade, soft, scale = turned(grey, grey > 0, 60.0, 0.0)
    assert soft.shape == (60, 30) and scale == 3.0
    assert abs(int((soft >= 0.5).sum()) - 60 * 30) < 20 and np.allclose(shade, 90, atol=1)
    _, soft, _ = turned(grey, grey > 0, 60.0, np.pi / 2)
    assert soft.shape == (30, 60)
    _, soft, _ = turned(grey, grey > 0, 80.0, 0.5)
    rows, columns = (np.flatnonzero((soft >= 0.5).any(axis=axis)) for axis in (1, 0))
    assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - 80) <= 2


def test_scenes_depend_on_seed_split_and_number_alone(fashion: Path) -> None:
    closet = Closet(fashion, "train", seed=3)
    scene = closet.scene(5)
    closet.scene(0)
    assert (closet.scene(5).picture == scene.picture).all()
    for other in (Closet(fashion, "train", seed=4), Closet(fashion, "val", seed=3)):
        assert (other.scene(5).picture != scene.picture).any()


def test_every_garment_is_seen(fashion: Path) -> None:
    closet = Closet(fashion, "val", size_hw=(96, 160))
    for index in range(20):
        scene = closet.scene(index)
        assert scene.picture.shape == (96, 160, 3) and 2 <= len(scene.labels) <= 5
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
        for image in document["images"]:
            own = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            picture = read_picture(written / split / image["file_name"])
            labels = np.asarray(read_picture(written / "labels" / split / f"{Path(image['file_name']).stem}.png"))[
                ..., 0
            ]
            assert picture.size == (image["width"], image["height"]) and picture.mode == "RGB"
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
                picture = read_picture(path)
                assert picture.width == picture.height >= 20
    with pytest.raises(ValueError, match="at least one scene"):
        write_crops(tmp_path / "none", fashion_mnist=fashion, train_scenes=0)
    with pytest.raises(FileExistsError, match="not empty"):
        write_crops(tmp_path / "crops", fashion_mnist=fashion)
