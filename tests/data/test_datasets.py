from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data import (
    FashionMNIST,
    ImageDataset,
    ImageFolder,
    Sample,
    Selection,
    Unreadable,
    hold_out,
    open_dataset,
    read_sample,
)


def packed(content: bytes) -> bytes:
    """Return the same bytes at every time of day."""
    return gzip.compress(content, mtime=0)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    images = np.arange(6 * 28 * 28).reshape(6, 28, 28) % 251
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(packed(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array([0, 9, 3, 3, 1, 2])))
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, path in enumerate(("train/cat/b.png", "train/cat/a.jpg", "train/dog/deep/c.png", "val/dog/d.png")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 6), (40 * i, 0, 0)).save(tmp_path / path)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    (tmp_path / "train/cat/.hidden.png").write_bytes(b"")
    (tmp_path / "train/.cache").mkdir()
    return tmp_path


def test_fashion_mnist(fashion: Path) -> None:
    dataset = FashionMNIST(fashion, "val")
    assert len(dataset) == 6 and len(dataset.class_names) == 10
    sample = dataset[1]
    assert sample.target == 9 and sample.name == "t10k-images-idx3-ubyte.gz#1"
    assert sample.image.mode == "RGB"
    assert (np.asarray(sample.image)[..., 2] == dataset.images[1]).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", b"", "ends within its header"),
        ("train-labels-idx1-ubyte", idx(np.zeros(6))[:-1], "announces 6 bytes .* but holds 5"),
        ("train-labels-idx1-ubyte", idx(np.zeros(6)) + b"x", "but holds 7"),
        ("train-labels-idx1-ubyte", idx(np.zeros((6, 1, 1))), "starts with 0x00000803, expected 0x00000801"),
        ("train-labels-idx1-ubyte", idx(np.zeros(5)), "holds 6 images but .* 5 labels"),
        ("train-labels-idx1-ubyte", idx(np.full(6, 10)), "holds the label 10"),
        ("train-images-idx3-ubyte.gz", b"not packed", "damaged or not complete"),
        ("train-images-idx3-ubyte.gz", packed(idx(np.zeros((6, 28, 28))))[:40], "damaged or not complete"),
        ("train-images-idx3-ubyte.gz", packed(struct.pack(">4I", 0x803, *[2**32 - 1] * 3)), "announces"),
    ],
)
def test_broken_idx_files(fashion: Path, name: str, content: bytes, message: str) -> None:
    (fashion / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        FashionMNIST(fashion, "train")
    assert name in str(caught.value)


def test_missing_idx_file(fashion: Path) -> None:
    (fashion / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte\.gz"):
        open_dataset(fashion, "train")


def test_image_folder(folder: Path) -> None:
    dataset = open_dataset(folder, "train")
    assert dataset.class_names == ("cat", "dog")
    assert [Path(dataset[i].name).name for i in range(len(dataset))] == ["a.jpg", "b.png", "c.png"]
    assert [dataset[i].target for i in range(len(dataset))] == [0, 0, 1]


def test_validation_classes_follow_the_training_folder(folder: Path) -> None:
    dataset = open_dataset(folder, "val")
    assert dataset.class_names == ("cat", "dog")
    assert [dataset[i].target for i in range(len(dataset))] == [1]
    (folder / "val/bird").mkdir()
    with pytest.raises(ValueError, match="bird"):
        open_dataset(folder, "val")


def test_class_folders_alone_are_a_validation_set(folder: Path) -> None:
    assert len(open_dataset(folder / "train", "val")) == 3
    with pytest.raises(FileNotFoundError, match="no folder 'train'"):
        open_dataset(folder / "train", "train")


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 6)).save(root / path)
    return root


def names(dataset: ImageDataset[int], root: Path) -> list[str]:
    return [Path(dataset[i].name).relative_to(root).as_posix() for i in range(len(dataset))]


@pytest.mark.parametrize("valid", ["valid", "Valid", "VAL", "validation", "Validation", "dev", "eval", "val_set"])
@pytest.mark.parametrize("train", ["Train", "training"])
def test_parts_by_any_name(tmp_path: Path, valid: str, train: str, caplog: pytest.LogCaptureFixture) -> None:
    root = put(tmp_path, f"{train}/cat/a.png", f"{train}/dog/b.png", f"{valid}/dog/c.png", "Test/dog/d.png")
    assert names(open_dataset(root, "val"), root) == [f"{valid}/dog/c.png"]
    assert names(open_dataset(root, "train"), root) == [f"{train}/cat/a.png", f"{train}/dog/b.png"]
    assert names(open_dataset(root, "test"), root) == ["Test/dog/d.png"]
    for split in ("val", "test"):
        assert open_dataset(root, split).class_names == ("cat", "dog") and open_dataset(root, split)[0].target == 1
    assert not caplog.records


def test_test_stands_in_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = put(tmp_path, "train/cat/a.png", "test/cat/b.png")
    assert names(open_dataset(root, "test"), root) == ["test/cat/b.png"] and not caplog.records
    assert names(open_dataset(root, "val"), root) == ["test/cat/b.png"]
    assert "has no validation part" in caplog.text
    with pytest.raises(ValueError, match="split must be 'train', 'val' or 'test'"):
        open_dataset(root, "valid")  # type: ignore[arg-type]


def test_published_test_part_is_said(fashion: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(open_dataset(fashion, "test")) == 6 and not caplog.records
    assert len(open_dataset(fashion, "val")) == 6 and "t10k is measured" in caplog.text


def test_the_part_that_is_not_there(tmp_path: Path) -> None:
    root = put(tmp_path, "Train/cat/a.png", "Val/cat/b.png")
    with pytest.raises(FileNotFoundError, match=r"has 'Train', 'Val' but none of test or testing; .*--split"):
        open_dataset(root, "test")


def test_folders_of_another_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = put(tmp_path / "above", "fruit/train/fig/a.png", "fruit/Val/fig/b.png")
    assert names(open_dataset(root), root) == ["fruit/Val/fig/b.png"]
    assert "holds the data set in its folder fruit" in caplog.text
    put(root, "cars/train/van/a.png")
    with pytest.raises(FileNotFoundError, match="has no parts, but its folders 'cars', 'fruit' have"):
        open_dataset(root)
    with pytest.raises(ValueError, match="if it is one class, give the folder that holds it"):
        open_dataset(root / "fruit/Val/fig")


def test_classes_may_be_called_like_parts(tmp_path: Path) -> None:
    root = put(tmp_path, "bus/a.png", "train/b.png", "test/c.png")
    assert open_dataset(root).class_names == ("bus", "test", "train")


def test_names_of_validation_classes_may_differ_in_case(tmp_path: Path) -> None:
    root = put(tmp_path, "train/hot dog/a.png", "train/Cat/b.png", "val/Hot_Dog/c.png", "val/cat/d.png")
    val = open_dataset(root)
    assert val.class_names == ("Cat", "hot dog") and [val[i].target for i in range(2)] == [1, 0]
    assert [Path(val[i].name).parent.name for i in range(2)] == ["Hot_Dog", "cat"]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        ImageFolder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="none of val"):
        open_dataset(tmp_path, "val")


def test_a_broken_image_is_reported_by_file_name(folder: Path) -> None:
    (folder / "train/cat/b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    dataset = ImageFolder(folder / "train")
    entry = read_sample(dataset, 1)
    assert isinstance(entry, Unreadable) and entry.index == 1 and "b.png" in entry.reason
    assert isinstance(read_sample(dataset, 0), Sample)


def test_hold_out_is_a_fixed_partition(fashion: Path) -> None:
    dataset = FashionMNIST(fashion, "train")
    train, val = hold_out(dataset, 2)
    again, _ = hold_out(dataset, 2)
    assert sorted([*train.indices, *val.indices]) == list(range(6)) and len(val) == 2
    assert (train.indices == again.indices).all()
    assert train[0].name == dataset[int(train.indices[0])].name
    for count in (0, 6):
        with pytest.raises(ValueError, match=r"1\.\.5"):
            hold_out(dataset, count)
    with pytest.raises(ValueError, match=r"0\.\.5"):
        Selection(dataset, [6])
