"""Damaged annotation files: each is read, or refused in a sentence that names a file, within seconds."""

from __future__ import annotations

import gzip
import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from internimage.data import FashionMNIST
from internimage.data.label_maps.census import count_pixels
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.data.objects.census import count_examples, count_targets
from internimage.data.readers.open_objects import open_detection_dataset
from tests.fuzz.mutations import mutated
from tests.fuzz.structures import damaged_document, damaged_text

SHORT, LONG = 40, 500
TIME_LIMIT = 20.0  # seconds for one case, on a busy machine; most take a hundredth of one
NAMES = ("apple", "pear")


def image(path: Path, size_wh: tuple[int, int] = (80, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size_wh, (90, 30, 10)).save(path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def coco(root: Path) -> list[Path]:
    for i in range(3):
        image(root / "train" / f"{i}.png")
    runs = [{"size": [60, 80], "counts": counts} for counts in ([10, 20, 4770], "132P1o^4")]
    masks = [[[10, 10, 30, 10, 30, 30]], *runs, [[5, 5, 9, 5, 9, 9, 5, 9], [1, 1, 4, 1, 4, 4]]]
    objects = [
        {
            "id": i,
            "image_id": i % 3,
            "category_id": 1 + i % 2,
            "bbox": [10, 5, 20, 30.5],
            "area": 610,
            "iscrowd": i // 3,
        }
        | {"segmentation": masks[i]}
        for i in range(4)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(3)]
    categories = [{"id": i + 1, "name": name, "supercategory": "fruit"} for i, name in enumerate(NAMES)]
    document = {"images": images, "annotations": objects, "categories": categories}
    return [write(root / "annotations" / "train.json", json.dumps(document))]


def yolo(root: Path) -> list[Path]:
    lists = "".join(f"./images/train/{i}.png\n" for i in range(2))
    files = [write(root / "data.yaml", "path: .\ntrain: train.txt\nval: train.txt\nnames:\n  0: apple\n  1: pear\n")]
    files.append(write(root / "train.txt", lists))
    for i in range(2):
        image(root / "images" / "train" / f"{i}.png")
        lines = "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.4 0.1 0.4 0.4\n"
        files.append(write(root / "labels" / "train" / f"{i}.txt", lines))
    return files


XML = """<annotation><folder>x</folder><filename>{0}.png</filename><path>C:\\x\\{0}.png</path>
<size><width>80</width><height>60</height><depth>3</depth></size>
<object><name>{1}</name><difficult>0</difficult><truncated>0</truncated>
<bndbox><xmin>11</xmin><ymin>12</ymin><xmax>41</xmax><ymax>33</ymax></bndbox></object>
<object><name>{1}</name><difficult>1</difficult>
<bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>14</xmax><ymax>13</ymax></bndbox></object></annotation>
"""


def voc(root: Path) -> list[Path]:
    files = [write(root / "ImageSets" / "Main" / "train.txt", "1\n2\n")]
    for name, label in (("1", "dog"), ("2", "cat")):
        image(root / "JPEGImages" / f"{name}.png")
        files.append(write(root / "Annotations" / f"{name}.xml", XML.format(name, label)))
    return files


def xml(root: Path) -> list[Path]:
    image(root / "train" / "a.png")
    image(root / "train" / "b.png")
    return [write(root / "train" / f"{name}.xml", XML.format(name, "apple")) for name in ("a", "b")]


def open_images(root: Path) -> list[Path]:
    for name in "ab":
        image(root / "train" / f"{name}.jpg")
    folder = root / "annotations"
    boxes = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n" + "".join(
        f"{name},x,/m/{code},1,0.1,0.5,0.2,0.6,0,{code}\n" for name in "ab" for code in (0, 1)
    )
    hierarchy = {"LabelName": "/m/e", "Subcategory": [{"LabelName": "/m/0", "Subcategory": [{"LabelName": "/m/1"}]}]}
    return [
        write(folder / "oidv6-train-annotations-bbox.csv", boxes),
        write(folder / "class-descriptions-boxable.csv", "LabelName,DisplayName\n/m/0,Apple\n/m/1,Pear\n"),
        write(folder / "train-annotations-human-imagelabels-boxable.csv", "ImageID,LabelName,Confidence\na,/m/1,0\n"),
        write(folder / "bbox_labels_600_hierarchy.json", json.dumps(hierarchy)),
    ]


def masks(root: Path) -> list[Path]:
    content = {"classes": list(NAMES), "palette": [[0, 0, 0], [200, 0, 0]], "ignored_colors": [[9, 9, 9]]}
    files = [write(root / "classes.json", json.dumps(content))]
    for i in range(2):
        image(root / "images" / "train" / f"{i}.png", (12, 10))
        files.append(root / "masks" / "train" / f"{i}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        values = np.arange(120, dtype=np.uint8).reshape(10, 12) % 2
        PIL.Image.fromarray(values if i else np.repeat(values[..., None], 3, axis=2) * 0).save(files[-1])
    return files


def idx(root: Path) -> list[Path]:
    content = np.arange(4 * 28 * 28, dtype=np.uint32).astype(np.uint8).tobytes()
    images, labels = root / "train-images-idx3-ubyte", root / "train-labels-idx1-ubyte.gz"
    root.mkdir(parents=True, exist_ok=True)
    images.write_bytes(struct.pack(">4I", 0x0803, 4, 28, 28) + content)
    labels.write_bytes(gzip.compress(struct.pack(">2I", 0x0801, 4) + bytes([0, 9, 3, 1])))
    return [images, labels]


def read_objects(root: Path) -> None:
    dataset = open_detection_dataset(root, "train")
    assert sum(count_examples(dataset).counts) <= sum(count_targets(dataset).counts)
    for i in range(len(dataset)):
        dataset.annotation(i)
        dataset[i]


def read_masks(root: Path) -> None:
    dataset = open_segmentation_dataset(root, split="train")
    count_pixels(dataset)
    for i in range(len(dataset)):
        dataset[i]


def read_idx(root: Path) -> None:
    dataset = FashionMNIST(root, "train")
    for i in range(len(dataset)):
        dataset[i]


KINDS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path], None]]] = {
    "coco": (coco, read_objects),
    "yolo": (yolo, read_objects),
    "voc": (voc, read_objects),
    "xml": (xml, read_objects),
    "open_images": (open_images, read_objects),
    "masks": (masks, read_masks),
    "idx": (idx, read_idx),
}


def damage(file: Path, rng: random.Random) -> None:
    """Damage the bytes of a file, its words, or the entries of its document."""
    content, way = file.read_bytes(), rng.random()
    if file.suffix in (".json", ".txt", ".xml", ".yaml", ".csv") and way < 0.75:
        text = content.decode()
        if file.suffix == ".json" and way < 0.5:
            document: Any = json.loads(text)
            for _ in range(rng.choice((1, 1, 2, 5))):
                document = damaged_document(document, rng)
            try:
                file.write_text(json.dumps(document), encoding="utf-8")
                return
            except (ValueError, RecursionError):  # a number that is too long to be written
                pass
        content = damaged_text(text, rng).encode("utf-8", "surrogatepass")
    else:
        content = mutated(content, rng)
    file.write_bytes(content)


def attack(kind: str, folder: Path, number: int) -> dict[str, int]:
    """Read `number` damaged data sets; returns how many were read and how many refused."""
    make, read = KINDS[kind]
    rng = random.Random(f"annotations {kind}")
    files = make(folder)
    whole = {file: file.read_bytes() for file in files}
    read(folder)
    outcomes = {"read": 0, "refused": 0}
    for case in range(number):
        for file in rng.sample(files, min(len(files), rng.choice((1, 1, 2)))):
            damage(file, rng)
        start = time.monotonic()
        try:
            read(folder)
            outcomes["read"] += 1
        except (ValueError, OSError) as error:
            assert str(folder) in str(error), f"{kind}, case {case}: no file is named in {str(error)[:300]!r}"
            assert len(str(error)) < 20_000, f"{kind}, case {case}: {len(str(error))} letters: {str(error)[:200]!r}"
            outcomes["refused"] += 1
        seconds = time.monotonic() - start
        assert seconds < TIME_LIMIT, f"{kind}, case {case}: {seconds:.1f} seconds"
        for file, content in whole.items():
            file.write_bytes(content)
    return outcomes


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged images in its own words
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_annotations(kind: str, tmp_path: Path) -> None:
    outcomes = attack(kind, tmp_path / "set", SHORT)
    assert sum(outcomes.values()) == SHORT and min(outcomes.values()) > 2, outcomes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged images in its own words
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_annotations(kind: str, tmp_path: Path) -> None:
    outcomes = attack(kind, tmp_path / "set", LONG)
    assert sum(outcomes.values()) == LONG and min(outcomes.values()) > LONG / 20, outcomes
