from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from internimage.data import Sample, Selection, fingerprint, open_dataset
from internimage.data.fingerprint import DataFingerprint
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.data.readers.open_objects import open_detection_dataset

Open = Callable[[Path], Any]


def image(path: Path, seed: int, mode: str = "RGB") -> None:
    """Write an uncompressed image: all have the same size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (12, 16, 3) if mode == "RGB" else (12, 16)
    values = np.random.default_rng(seed).integers(0, 256 if mode == "RGB" else 2, shape, dtype=np.uint8)
    PIL.Image.fromarray(values).save(path, "BMP" if mode == "RGB" else "TIFF")


def folders(root: Path) -> Path:
    for i, name in enumerate(("apple", "pear")):
        for k in range(3):
            image(root / "train" / name / f"{k}.bmp", 10 * i + k)
    return root


def coco(root: Path) -> Path:
    images = [{"id": k, "file_name": f"{k}.bmp", "width": 16, "height": 12} for k in range(3)]
    objects = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0} for k in range(3)
    ]
    for k in range(3):
        image(root / "train" / f"{k}.bmp", k)
        objects[k]["segmentation"] = [[1, 1, 10, 1, 10, 10, 1, 10]]
    document = {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(document))
    return root


def masks(root: Path) -> Path:
    for k in range(3):
        image(root / "images" / "train" / f"{k}.bmp", k)
        image(root / "masks" / "train" / f"{k}.tif", k, mode="L")
    (root / "classes.txt").write_text("a\nb\n")
    return root


def yolo(root: Path) -> Path:
    for k in range(3):
        image(root / "images" / "train" / f"{k}.bmp", k)
        path = root / "labels" / "train" / f"{k}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "classes.txt").write_text("a\nb\n")
    return root


def open_folders(root: Path) -> Any:
    return open_dataset(root, "train")


def open_objects(root: Path) -> Any:
    return open_detection_dataset(root, "train", filter_empty=False)


def open_masks(root: Path) -> Any:
    return open_segmentation_dataset(root, split="train")


KINDS: dict[str, tuple[Callable[[Path], Path], Open]] = {
    "folders": (folders, open_folders),
    "coco": (coco, open_objects),
    "yolo": (yolo, open_objects),
    "masks": (masks, open_masks),
}


def first(root: Path, ending: str = ".bmp") -> Path:
    return sorted(root.rglob(f"*{ending}"))[0]


def edit_document(root: Path, edit: Callable[[Any], None]) -> None:
    path = root / "annotations" / "train.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Open]:
    write, opened = KINDS[request.param]
    return write(tmp_path / "data"), opened


def test_copied_moved_and_touched_data_is_the_same(data: tuple[Path, Open], tmp_path: Path) -> None:
    root, opened = data
    before = DataFingerprint.of(opened(root))
    shutil.copytree(root, tmp_path / "elsewhere" / "copy")
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    for place in (root, tmp_path / "elsewhere" / "copy"):
        after = DataFingerprint.of(opened(place))
        assert after == before and after.digest == before.digest and before.changes(after).are_none
    assert DataFingerprint.from_plain(json.loads(json.dumps(before.to_plain()))) == before
    before.changes(before).texts()


def test_a_replaced_image_of_the_same_size_and_time_is_seen(data: tuple[Path, Open]) -> None:
    root, opened = data
    before = DataFingerprint.of(opened(root))
    path = first(root)
    stat = path.stat()
    image(path, 99)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    changes = before.changes(DataFingerprint.of(opened(root)))
    assert len(changes.images) == 1 and changes.images[0].endswith(path.name) and not changes.targets
    assert changes.texts() == [f"1 image replaced ({changes.images[0]!r})"]


@pytest.mark.parametrize("data", ["folders", "yolo", "masks"], indirect=True)
def test_added_and_removed_images(data: tuple[Path, Open]) -> None:
    root, opened = data
    before = DataFingerprint.of(opened(root))
    path = first(root)
    for number in range(5):
        shutil.copy(path, path.with_name(f"new{number}.bmp"))
        mask = root / "masks" / "train"
        if mask.exists():
            shutil.copy(mask / "0.tif", mask / f"new{number}.tif")
    grown = DataFingerprint.of(opened(root))
    [text] = before.changes(grown).texts()
    assert text.startswith("5 images added (") and "new2.bmp' and 2 more" in text
    [text] = grown.changes(before).texts()
    assert text.startswith("5 images removed (")


def test_classes() -> None:
    def named(*names: str) -> DataFingerprint:
        return DataFingerprint(names, ("0",), ("1",), ("1",))

    assert named("a", "b").changes(named("a", "c")).texts() == ["1 class removed ('b')", "1 class added ('c')"]
    assert named("a", "b").changes(named("b", "a")).texts() == [
        "classes in another order (first 'a', 'b', now 'b', 'a')"
    ]
    assert named("a", "b").changes(named("a", "b", "c", "d")).texts() == ["2 classes added ('c', 'd')"]
    assert len({named("a", "b").digest, named("b", "a").digest, named("ab").digest}) == 3


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["annotations"][1].update(bbox=[1, 1, 8, 9]),
        lambda document: document["annotations"][1].update(category_id=2),
        lambda document: document["annotations"][1].update(iscrowd=1),
        lambda document: document["annotations"][1].update(segmentation=[[1, 1, 10, 1, 10, 10]]),
        lambda document: document["annotations"].pop(1),
        lambda document: document["annotations"].append({**document["annotations"][1], "id": 9}),
    ],
)
def test_changed_annotations(tmp_path: Path, edit: Callable[[Any], None]) -> None:
    root = coco(tmp_path)
    before = DataFingerprint.of(open_objects(root))
    edit_document(root, edit)
    changes = before.changes(DataFingerprint.of(open_objects(root)))
    assert changes.targets == ("1.bmp",) and not changes.images
    assert changes.texts() == ["ground truth of 1 image changed ('1.bmp')"]


def test_the_form_of_an_annotation_file_does_not_count(tmp_path: Path) -> None:
    root = coco(tmp_path)
    before = DataFingerprint.of(open_objects(root))
    path = root / "annotations" / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3, sort_keys=True))
    assert DataFingerprint.of(open_objects(root)) == before
    dataset = open_objects(root)
    assert [dataset[i].target.labels.tolist() for i in range(3)] == [[0]] * 3  # read in between, which sets sizes
    assert DataFingerprint.of(dataset) == before


def test_changed_masks_and_their_meaning(tmp_path: Path) -> None:
    root = masks(tmp_path)
    before = DataFingerprint.of(open_masks(root))
    image(root / "masks" / "train" / "1.tif", 50, mode="L")
    assert before.changes(DataFingerprint.of(open_masks(root))).targets == ("1.bmp",)
    shutil.rmtree(root)
    masks(root)
    (root / "classes.txt").write_text("b\na\n")
    assert before.changes(DataFingerprint.of(open_masks(root))).classes
    (root / "classes.txt").write_text("a\nb\nc\n")
    assert before.changes(DataFingerprint.of(open_masks(root))).targets == ("0.bmp", "1.bmp", "2.bmp")


def test_idx_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)

    def write(labels: list[int], ending: str = "") -> DataFingerprint:
        for part, values in (("images-idx3", images), ("labels-idx1", np.array(labels, dtype=np.uint8))):
            header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
            content = header + values.tobytes()
            for old in tmp_path.glob(f"train-{part}*"):
                old.unlink()
            path = tmp_path / f"train-{part}-ubyte{ending}"
            path.write_bytes(gzip.compress(content) if ending else content)
        return DataFingerprint.of(open_folders(tmp_path))

    before = write([0, 1, 2, 3, 4, 5])
    assert write([0, 1, 2, 3, 4, 5], ".gz") == before
    changes = before.changes(write([0, 1, 2, 3, 4, 9]))
    assert changes.targets == ("train-images-idx3-ubyte#5",) and not changes.images


class Own:
    """A data set that does not tell where its samples come from."""

    class_names = ("a", "b")

    def __init__(self, shade: int = 0, target: int = 0, number: int = 3) -> None:
        self.shade, self.target, self.number = shade, target, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Sample[int]:
        if index == 1:
            raise ValueError("1 is broken")
        return Sample(PIL.Image.new("L", (4, 4), self.shade), self.target, str(index))


def test_other_data_sets_are_read(tmp_path: Path) -> None:
    before = DataFingerprint.of(Own())
    assert before == DataFingerprint.of(Own())
    assert before.changes(DataFingerprint.of(Own(shade=1))).images == ("sample 0", "sample 2")
    assert before.changes(DataFingerprint.of(Own(target=1))).targets == ("sample 0", "sample 2")
    assert before.changes(DataFingerprint.of(Own(number=4))).samples == ("1 image added ('sample 3')",)
    dataset = open_folders(folders(tmp_path))
    part = DataFingerprint.of(Selection(Selection(dataset, [4, 0, 2]), [2, 0]))
    assert part.names == ("apple/2.bmp", "pear/1.bmp") and part.targets[1] != part.targets[0]


def test_of_much_data_some_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path)
    before = DataFingerprint.of(open_folders(root))
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 1)
    monkeypatch.setattr(fingerprint, "SAMPLED_FILES", 2)
    after = DataFingerprint.of(open_folders(root))
    assert sum(":" in entry for entry in after.images) == 2
    assert before.changes(after).are_none and after.changes(before).are_none
    image(root / "train" / "apple" / "0.bmp", 77)  # one of the two
    (root / "train" / "pear" / "1.bmp").write_bytes(b"of another size")
    assert after.changes(DataFingerprint.of(open_folders(root))).images == ("apple/0.bmp", "pear/1.bmp")


def test_missing_files_are_no_error(tmp_path: Path) -> None:
    root = folders(tmp_path)
    dataset = open_folders(root)
    before = DataFingerprint.of(dataset)
    first(root).unlink()
    assert before.changes(DataFingerprint.of(dataset)).images == ("apple/0.bmp",)


@pytest.mark.parametrize("values", [None, [], {"names": []}, {"class_names": ["a"], "names": [1], "images": ["1"]}])
def test_damaged_fingerprints(values: Any) -> None:
    with pytest.raises(ValueError, match="fingerprint of a data set"):
        DataFingerprint.from_plain(values)
    whole = {"class_names": ["a"], "names": ["0"], "images": ["1"], "truths": []}
    with pytest.raises(ValueError, match="one name, image and ground truth"):
        DataFingerprint.from_plain(whole)


@pytest.mark.slow
def test_a_million_images_take_seconds(tmp_path: Path) -> None:
    class Many:
        class_names = ("a",)

        def __init__(self, path: Path) -> None:
            self.path = path

        def __len__(self) -> int:
            return 1_000_000

        def __getitem__(self, index: int) -> Sample[int]:
            raise AssertionError("not to be read")

        def source(self, index: int) -> fingerprint.SampleSource:
            return fingerprint.SampleSource(self.path, b"0", str(index))

    image(tmp_path / "0.bmp", 0)
    started = time.monotonic()
    DataFingerprint.of(Many(tmp_path / "0.bmp"))
    assert time.monotonic() - started < 60
