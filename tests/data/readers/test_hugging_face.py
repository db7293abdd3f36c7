from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data import open_dataset
from internimage.data.fingerprint import DataFingerprint
from internimage.data.readers.open_labels import open_whole
from internimage.data.readers.shards.write import write_shards
from internimage.errors import MissingExtra
from tests.data.readers.shards.conftest import jpeg

NAMES = ["ant", "bee", "cat"]


def table(labels: list[int], *, named: bool = True, first: int = 0):
    datasets = pytest.importorskip("datasets")
    kind = datasets.ClassLabel(names=NAMES) if named else datasets.Value("int64")
    images = [{"bytes": jpeg(first + i), "path": f"{i}.jpg" if i else None} for i in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def check(root: Path) -> None:
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    assert train.class_names == val.class_names == tuple(NAMES)
    assert [train[i].target for i in range(3)] == [2, 0, 1] and [val[i].target for i in range(2)] == [1, 1]
    with PIL.Image.open(io.BytesIO(jpeg(1))) as image:
        assert np.array_equal(np.asarray(train[1].image), np.asarray(image))


def test_what_was_saved_to_disk(tmp_path: Path) -> None:
    parts = {"train": table([2, 0, 1]), "validation": table([1, 1], first=9)}
    pytest.importorskip("datasets").DatasetDict(parts).save_to_disk(tmp_path / "saved")
    check(tmp_path / "saved")
    write_shards(tmp_path / "saved", tmp_path / "shards")
    check(tmp_path / "shards")
    table([2, 0, 1]).save_to_disk(tmp_path / "one")
    whole = open_whole(tmp_path / "one")
    assert whole is not None and len(whole) == 3
    before = DataFingerprint.of(whole)
    table([2, 0, 1], first=1).save_to_disk(tmp_path / "two")
    other = open_whole(tmp_path / "two")
    assert other is not None and DataFingerprint.of(other).digest != before.digest


def test_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("datasets").config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set" / "data").mkdir(parents=True)
    table([2, 0, 1]).to_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    table([1, 1], first=9).to_parquet(tmp_path / "set" / "data" / "validation-00000-of-00001.parquet")
    check(tmp_path / "set")
    (tmp_path / "set" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="the tables of 'train' cannot be read"):
        open_dataset(tmp_path / "set", "train")


def test_labels_without_names(tmp_path: Path) -> None:
    parts = {"train": table([2, 0, 1], named=False), "test": table([0, 5], named=False)}
    pytest.importorskip("datasets").DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert open_dataset(tmp_path / "saved", "train").class_names == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"class number 5; expected 0\.\.2"):
        open_dataset(tmp_path / "saved", "test")


def test_columns_that_say_nothing(tmp_path: Path) -> None:
    table([2, 0, 1], named=False).rename_column("label", "caption").save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"one column of images and one of labels .* given image, caption"):
        open_whole(tmp_path / "saved")


def test_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'internimage\[datasets\]'"):
        open_dataset(tmp_path, "train")
