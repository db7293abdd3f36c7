"""Own classes and parts in the folders of published data sets and of other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data.label_maps.layouts import own_folders
from internimage.data.label_maps.open import open_segmentation_dataset

Make = Callable[..., Path]
Mask = Callable[..., np.ndarray]


@pytest.mark.parametrize("valid", ["valid", "Val", "VALIDATION", "dev"])
@pytest.mark.parametrize(
    ("images", "masks"),
    [("{}/images", "{}/masks"), ("images/{}", "labels/{}"), ("{}", "annotations/{}"), ("Images/{}", "Masks/{}")],
)
def test_parts_by_any_name(
    make: Make, mask: Mask, valid: str, images: str, masks: str, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("Train", valid, "test"):
        make(f"{images.format(part)}/{part}.png")
        root = make(f"{masks.format(part)}/{part}.png", mask(0, 1))
    (root / "classes.txt").write_text("ground\nhouse\n")
    for split, part in (("train", "Train"), ("val", valid), ("test", "test")):
        assert [Path(files.image).stem for files in open_segmentation_dataset(root, split=split).files] == [part]
    assert len(open_segmentation_dataset(root, split="train+val")) == 2 and not caplog.records


def test_test_stands_in_with_a_word(make: Make, mask: Mask, caplog: pytest.LogCaptureFixture) -> None:
    make("test/images/a.png")
    root = make("test/masks/a.png", mask(0))
    (root / "classes.txt").write_text("ground\nhouse\n")
    with pytest.raises(FileNotFoundError, match="no split 'val'"):
        open_segmentation_dataset(root, test_stands_in=False)
    assert "is left alone" in caplog.text
    assert len(open_segmentation_dataset(root)) == 1 and "its test part is taken" in caplog.text


def test_the_folder_above_is_accepted(make: Make, mask: Mask, caplog: pytest.LogCaptureFixture) -> None:
    make("fields/Val/images/a.png")
    root = make("fields/Val/masks/a.png", mask(0, 1))
    (root / "fields" / "classes.txt").write_text("ground\nhouse\n")
    assert len(open_segmentation_dataset(root)) == 1
    assert "holds the data set in its folder fields" in caplog.text


def test_masks_of_the_same_part_come_first(make: Make) -> None:
    for folder in ("images/val", "images/valid", "masks/valid", "masks/val"):
        root = make(f"{folder}/a.png")
    assert own_folders(root, "val") == (root / "images/val", root / "masks/val")
    assert own_folders(root, "train_extra") is None and own_folders(root, "test") is None


def cityscapes(make: Make, mask: Mask, city: str = "here") -> Path:
    for part in ("train", "Val"):
        make(f"leftImg8bit/{part}/{city}/{part}_1_leftImg8bit.png")
        root = make(f"gtFine/{part}/{city}/{part}_1_gtFine_labelIds.png", mask(0, 1, 255))
        make(f"gtFine/{part}/{city}/{part}_1_gtFine_color.png", mask(7))
    return root


def test_own_classes_in_the_folders_of_cityscapes(make: Make, mask: Mask, caplog: pytest.LogCaptureFixture) -> None:
    root = cityscapes(make, mask)
    (root / "classes.txt").write_text("grass\nrock\n")
    for split in ("train", "val"):
        data = open_segmentation_dataset(root, split=split)
        assert data.class_names == ("grass", "rock") and np.unique(data[0].target).tolist() == [0, 1, 255]
    (root / "classes.txt").unlink()
    assert open_segmentation_dataset(root, class_names=["a", "b"]).class_names == ("a", "b")
    assert not caplog.records
    published = open_segmentation_dataset(root, split="train")
    assert len(published.class_names) == 19 and "folders of cityscapes" in caplog.text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.json", '["grass", "rock"]'),
        ("labels.txt", "grass\nrock\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\ngrass:::\nrock:::\n"),
        ("label_map.pbtxt", 'item {\n  id: 1\n  name: "grass"\n}\nitem {\n  name: "rock"\n  id: 2\n}\n'),
    ],
)
@pytest.mark.parametrize("layout", ["ade20k", "cityscapes", "folders"])
def test_class_lists_of_other_tools(make: Make, mask: Mask, file: str, text: str, layout: str) -> None:
    if layout == "cityscapes":
        root = cityscapes(make, mask)
    else:
        names = ("training", "validation") if layout == "ade20k" else ("train", "val")
        for part in names:
            make(f"images/{part}/a.jpg")
            root = make(f"annotations/{part}/a.png", mask(0, 1, 255))
    (root / file).write_text(text)
    for split in ("train", "val"):
        data = open_segmentation_dataset(root, split=split)
        assert data.class_names == ("grass", "rock") and np.unique(data[0].target).tolist() == [0, 1, 255]


def test_colors_of_cvat(make: Make) -> None:
    colored = np.zeros((6, 8, 3), dtype=np.uint8)
    colored[:2] = (250, 50, 83)
    make("train/a.jpg")
    root = make("masks/train/a.png", colored)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nrock:250,50,83::\n")
    data = open_segmentation_dataset(root, split="train")
    assert data.class_names == ("background", "rock") and data[0].target[:, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_published_files_are_what_they_are(make: Make, mask: Mask, caplog: pytest.LogCaptureFixture) -> None:
    """Some published data sets hold files that are called like the class lists of other tools."""
    make("images/validation/ADE_val_00000001.jpg")
    root = make("annotations/validation/ADE_val_00000001.png", mask(0, 1, 150))
    (root / "labels.txt").write_text("wall\nbuilding\n")
    assert len(open_segmentation_dataset(root).class_names) == 150 and not caplog.records


@pytest.mark.parametrize(("orientation", "stored_wh"), [(6, (8, 6)), (1, (6, 8))])
def test_an_image_that_the_camera_turned(make: Make, mask: Mask, orientation: int, stored_wh: tuple[int, int]) -> None:
    root = make("masks/val/a.png", mask(0))
    image = PIL.Image.new("RGB", stored_wh)
    exif = image.getexif()
    exif[0x112] = orientation
    (root / "images" / "val").mkdir(parents=True)
    image.save(root / "images" / "val" / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"has \(height, width\) \(6, 8\), but its image .* has \(8, 6\)") as error:
        open_segmentation_dataset(root, class_names=["ground", "lesion"])[0]
    assert ("the EXIF orientation of the file turns" in str(error.value)) == (orientation == 6)
    assert ("give both one size" in str(error.value)) == (orientation == 1)
