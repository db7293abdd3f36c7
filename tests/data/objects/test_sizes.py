from __future__ import annotations

import json
import logging
from pathlib import Path

import PIL.Image
import pytest

from internimage.data.images import image_file
from internimage.data.images import read as images
from internimage.data.objects import sizes as sizes_module
from internimage.data.readers.coco import open_coco
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection.batches.loading import TrainingViews
from internimage.detection.batches.pipelines import own_data_pipeline
from internimage.training import train


def write(root: Path, orientations: list[int], *, suffix: str = "jpg", size_wh: tuple[int, int] = (96, 80)) -> Path:
    """Write images of 96 x 80 stored pixels, turned by EXIF, with annotations that state `size_wh`."""
    for part in ("train", "val"):
        (root / part).mkdir()
        images, objects = [], []
        for i, orientation in enumerate(orientations):
            exif = PIL.Image.Exif()
            exif[image_file.ORIENTATION_TAG] = orientation
            PIL.Image.new("RGB", (96, 80), (90, 30, 10)).save(root / part / f"{i}.{suffix}", exif=exif)
            images.append({"id": i, "file_name": f"{i}.{suffix}", "width": size_wh[0], "height": size_wh[1]})
            objects.append({"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 30, 20]})
        document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "apple"}]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{part}.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_sizes_from_before_exif_turned_the_images(tmp_path: Path, orientation: int) -> None:
    write(tmp_path, [orientation] * 3)
    with pytest.raises(
        ValueError, match=r"(?s)train\.json: none of 3 images has the size.*\(96, 80\), but annotated as "
    ) as e:
        train("mask_rcnn_internimage_pico_closet", data=tmp_path, out=tmp_path / "run")
    assert "width and height are swapped, since the EXIF orientation" in str(e.value)
    assert "write its size into the annotations" in str(e.value) and "without the EXIF orientation" in str(e.value)


def test_right_sizes_and_boxes_of_turned_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [6, 8], size_wh=(80, 96))
    dataset = open_detection_dataset(tmp_path, "train", broken="raise")
    assert [dataset.size_hw(i) for i in range(2)] == [(96, 80), (96, 80)]
    assert dataset[0].image.size == (80, 96) and dataset[0].target.boxes_xyxy.tolist() == [[10, 10, 40, 30]]
    assert not caplog.records


def test_single_images_of_another_size_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [1, 6, 1, 3])
    with caplog.at_level(logging.WARNING):
        dataset = open_detection_dataset(tmp_path, "train")
    [record] = caplog.records
    assert "1 of 4 images looked at have another size than annotated" in record.message
    assert "1.jpg" in record.message and "EXIF" in record.message
    with pytest.raises(ValueError, match="the EXIF orientation of the file turns the image upright"):
        dataset[1]
    assert dataset[3].image.size == (96, 80), "turned upside down, its size is the same"


def test_another_size_without_exif(tmp_path: Path) -> None:
    write(tmp_path, [1, 1], size_wh=(80, 96))
    with pytest.raises(ValueError, match=r"none of 2 images has the size that is annotated:") as caught:
        open_detection_dataset(tmp_path, "val")
    assert "EXIF" not in str(caught.value)


def test_one_pass_over_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [1] * 30)
    read: list[str] = []
    header = images.image_size

    def counted(path: Path) -> tuple[int, int]:
        read.append(Path(path).name)
        return header(path)

    monkeypatch.setattr(sizes_module, "image_size", counted)
    monkeypatch.setattr(sizes_module, "SAMPLED", 10)
    open_detection_dataset(tmp_path, "train")
    assert len(read) == len(set(read)) == 10


def test_views_end_when_no_image_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, [1, 1, 1])
    dataset = open_coco(tmp_path / "annotations" / "train.json", tmp_path / "train")
    for i in range(3):
        (tmp_path / "train" / f"{i}.jpg").write_bytes(b"no image")
    reads: list[int] = []

    class Counting:
        class_names = dataset.class_names

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> object:
            reads.append(index)
            return dataset[index]

    pipeline = own_data_pipeline(shorter_side=(64, 64), longer_side=96, smallest_crop=0.9, flip=0.5)
    views = TrainingViews(Counting(), pipeline, seed=0)  # type: ignore[arg-type]  # fails before it gives a sample
    with pytest.raises(ValueError, match="none of 3 images can be read; the last one: "):
        views[0, 0]
    assert set(reads) == {0, 1, 2} and len(reads) < 100
