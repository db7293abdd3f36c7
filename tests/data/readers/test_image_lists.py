from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from internimage.data import open_dataset
from internimage.data.readers.shards.write import write_shards
from tests.data.readers.shards.conftest import jpeg

SYNSETS = ("n01440764", "n01443537")


def targets(root: Path, part: str) -> list[int]:
    dataset = open_dataset(root, part)  # pyright: ignore[reportArgumentType]  # one of the three parts
    return [dataset[i].target for i in range(len(dataset))]


def put(root: Path, *names: str) -> None:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """ImageNet as the original reads it: a list of training images, folders of validation images."""
    names = [f"{synset}/{synset}_{i}.JPEG" for synset in SYNSETS for i in range(3)]
    put(tmp_path / "train", *names)
    put(tmp_path / "val", f"{SYNSETS[1]}/a.JPEG")
    (tmp_path / "meta_data").mkdir()
    lines = [f"{name} {SYNSETS.index(name.split('/')[0])}" for name in reversed(names)]
    (tmp_path / "meta_data" / "train.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_lists_of_the_original(original: Path) -> None:
    train = open_dataset(original, "train")
    assert train.class_names == SYNSETS and targets(original, "train") == [1, 1, 1, 0, 0, 0]
    assert train[0].name.endswith(f"train/{SYNSETS[1]}/{SYNSETS[1]}_2.JPEG")
    assert open_dataset(original, "val").class_names == SYNSETS and targets(original, "val") == [1]


def test_a_packed_list(original: Path) -> None:
    path = original / "meta_data" / "train.txt"
    with zipfile.ZipFile(original / "meta_data" / "train.txt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "train.txt")
    path.unlink()
    assert targets(original, "train") == [1, 1, 1, 0, 0, 0]


def test_maps_and_zip_files(original: Path) -> None:
    lines = (original / "meta_data" / "train.txt").read_text().replace(" ", "\t")
    (original / "train_map.txt").write_text(lines)
    (original / "val_map.txt").write_text(f"{SYNSETS[1]}/a.JPEG\t1\n")
    shutil.rmtree(original / "meta_data")
    expected = [np.asarray(open_dataset(original, "train")[i].image) for i in range(6)]
    for part, base in (("train", None), ("val", "val")):  # with and without the folder of the part
        root = original / part if base is None else original
        shutil.make_archive(str(original / part), "zip", root, base)
        shutil.rmtree(original / part)
    train = open_dataset(original, "train")
    assert all(np.array_equal(np.asarray(train[i].image), expected[i]) for i in range(6))
    assert targets(original, "val") == [1] and "val.zip/val/" in open_dataset(original, "val")[0].name


def test_imagenet_22k(tmp_path: Path) -> None:
    put(tmp_path, "n00004475/n00004475_1.JPEG", "n00005787/n00005787_3.JPEG")
    (tmp_path / "22k_label.txt").write_text("n00005787/n00005787_3.JPEG 1\nn00004475/n00004475_1.JPEG 0\n")
    (tmp_path / "22k_class_to_idx.json").write_text('{"n00005787": 1, "n00004475": 0, "n00006024": 2}')
    assert open_dataset(tmp_path, "train").class_names == ("n00004475", "n00005787", "n00006024")
    assert targets(tmp_path, "train") == [1, 0]


def test_imagenet_of_kaggle(tmp_path: Path) -> None:
    home = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    put(home, *(f"train/{synset}/{synset}_1.JPEG" for synset in SYNSETS), "val/ILSVRC2012_val_00000001.JPEG")
    put(home, "test/ILSVRC2012_test_00000001.JPEG")
    rows = f"ImageId,PredictionString\nILSVRC2012_val_00000001,{SYNSETS[1]} 1 2 3 4 {SYNSETS[1]} 5 6 7 8\n"
    (tmp_path / "LOC_val_solution.csv").write_text(rows)
    (tmp_path / "LOC_train_solution.csv").write_text("ImageId,PredictionString\nn01440764_1,n01440764 1 2 3 4\n")
    assert open_dataset(tmp_path, "train").class_names == SYNSETS
    assert open_dataset(tmp_path, "val").class_names == SYNSETS and targets(tmp_path, "val") == [1]


def test_places365(tmp_path: Path) -> None:
    put(tmp_path, "data_256_standard/a/airfield/00000001.jpg", "data_256_standard/a/apartment/outdoor/00000002.jpg")
    put(tmp_path, "val_256/Places365_val_00000001.jpg")
    train = "/a/airfield/00000001.jpg 0\n/a/apartment/outdoor/00000002.jpg 1\n"
    (tmp_path / "places365_train_standard.txt").write_text(train)
    (tmp_path / "places365_train_challenge.txt").write_text(train + "/b/bar/00000009.jpg 2\n")
    (tmp_path / "places365_val.txt").write_text("Places365_val_00000001.jpg 2\n")
    (tmp_path / "places365_test.txt").write_text("Places365_test_00000001.jpg\n")
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/a/apartment/outdoor 1\n/b/bar 2\n")
    assert open_dataset(tmp_path, "train").class_names == ("airfield", "apartment/outdoor", "bar")
    assert targets(tmp_path, "train") == [0, 1] and targets(tmp_path, "val") == [2]
    with pytest.raises(FileNotFoundError, match="none of test"):
        open_dataset(tmp_path, "test")


def test_broken_lists(original: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = original / "meta_data" / "train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "../../etc/passwd.jpg 0", f"{SYNSETS[0]}/missing.JPEG 0"]))
    with caplog.at_level(logging.WARNING):
        assert len(open_dataset(original, "train")) == 6
    assert "2 broken annotations" in caplog.text and "missing.JPEG" in caplog.text
    path.write_text("\n".join([*lines, "no-label"]))
    with pytest.raises(ValueError, match=r"train\.txt, line 7: expected an image and its class, given 'no-label'"):
        open_dataset(original, "train")
    path.write_text("\n".join([*lines[:2], lines[2].replace(" 1", " -1")]))
    with pytest.raises(ValueError, match=r"some labels are numbers \(1\), others are names \('-1'\)"):
        open_dataset(original, "train")
    path.write_text("\n".join(lines).replace(SYNSETS[0], "other").replace(SYNSETS[1], "another"))
    with pytest.raises(FileNotFoundError, match="which lies in no folder and no zip file of"):
        open_dataset(original, "train")


def test_a_text_that_is_no_list(original: Path) -> None:
    for text in ("notes on training\n", "", "a.jpg\n"):
        (original / "meta_data" / "train.txt").write_text(text)
        assert targets(original, "train") == [0, 0, 0, 1, 1, 1]  # the folders


@pytest.fixture
def inaturalist(tmp_path: Path) -> Path:
    root = tmp_path / "inat"
    for part, ids in (("train", (7, 9, 8)), ("val", (3,))):
        names = [f"train_val2018/Aves/2820/{i}.jpg" for i in ids]
        put(root, *names)
        content = {
            "images": [{"id": i, "file_name": name} for i, name in zip(ids, names, strict=True)],
            "annotations": [{"image_id": i, "category_id": 10 * (i % 2)} for i in ids],
            "categories": [{"id": 10, "name": "Aves b"}, {"id": 0, "name": "Aves a"}],
        }
        (root / f"{part}2018.json").write_text(json.dumps(content))
    places = [
        {"id": 7, "lat": 10.5, "lon": -20.0, "date": "2017-06-03"},
        {"id": 9, "lat": None, "lon": None, "date": "2016-01-31 10:00:00+00:00"},
        {"id": 8, "lat": None, "lon": None, "date": None},
    ]
    (root / "train2018_locations.json").write_text(json.dumps(places))
    return root


def test_inaturalist(inaturalist: Path, tmp_path: Path) -> None:
    write_shards(inaturalist, tmp_path / "shards")
    for root in (inaturalist, tmp_path / "shards"):
        train = open_dataset(root, "train")
        assert train.class_names == ("Aves b", "Aves a") and targets(root, "train") == [0, 0, 1]
        known = [train[i].observation for i in range(3)]
        assert known[0] is not None and (known[0].latitude, known[0].longitude) == (10.5, -20.0)
        assert known[1] is not None and known[1].latitude is None and str(known[1].date) == "2016-01-31"
        assert known[2] is None
        assert targets(root, "val") == [0] and open_dataset(root, "val")[0].observation is None


def test_broken_files_of_inaturalist(inaturalist: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = inaturalist / "train2018.json"
    content = json.loads(path.read_text())
    content["images"] += [{"id": 99, "file_name": content["images"][0]["file_name"]}, {"id": 7, "file_name": "x.jpg"}]
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert len(open_dataset(inaturalist, "train")) == 3
    assert "images[3]: no class, or an unknown one: None" in caplog.text and "images[4]" in caplog.text
    places = [{"id": 7, "lat": 200.0, "lon": 0.0, "date": "someday"}]
    (inaturalist / "train2018_locations.json").write_text(json.dumps(places))
    assert open_dataset(inaturalist, "train")[0].observation is None
    for key in ("images", "annotations", "categories"):
        path.write_text(json.dumps({**content, key: 3}))
        with pytest.raises(ValueError, match=f"holds no list of '{key}'"):
            open_dataset(inaturalist, "train")
