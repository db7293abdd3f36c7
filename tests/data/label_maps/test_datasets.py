from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data import read_sample
from internimage.data.class_list import read_class_list
from internimage.data.label_maps.dataset import MaskedImage, SegmentationDataset
from internimage.data.label_maps.open import open_segmentation_dataset, pair_folders
from internimage.errors import UnknownName

Make = Callable[..., Path]
Mask = Callable[..., np.ndarray]


def test_ade20k(make: Make, mask: Mask) -> None:
    for part in ("training", "validation"):
        make(f"ADEChallengeData2016/images/{part}/a.jpg")
        root = make(f"ADEChallengeData2016/annotations/{part}/a.png", mask(0, 1, 150))
    for folder in (root, root / "ADEChallengeData2016"):
        dataset = open_segmentation_dataset(folder, split="train")
        assert dataset.class_names[:2] == ("wall", "building") and dataset.palette is not None
        assert np.unique(dataset[0].target).tolist() == [0, 149, 255]
    assert dataset[0].name.endswith("a.jpg") and dataset[0].image.size == (8, 6)


def test_cityscapes(make: Make, mask: Mask) -> None:
    make("leftImg8bit/train/ulm/ulm_0_leftImg8bit.png")
    make("gtFine/train/ulm/ulm_0_gtFine_labelIds.png", mask(0, 7, 33))
    make("gtFine/train/ulm/ulm_0_gtFine_color.png", mask(1))
    make("leftImg8bit/val/bonn/bonn_1_leftImg8bit.png")
    make("gtFine/val/bonn/bonn_1_gtFine_labelTrainIds.png", mask(255, 0, 18))
    make("leftImg8bit/train_extra/graz/graz_2_leftImg8bit.png")
    root = make("refinement_final/train_extra/graz/graz_2_gtFine_labelTrainIds.png", mask(3))
    for split in ("train", "val"):
        assert np.unique(open_segmentation_dataset(root, split=split)[0].target).tolist() == [0, 18, 255]
    both = open_segmentation_dataset(root, split="train+train_extra")
    assert len(both) == 2 and np.unique(both[1].target).tolist() == [3] and len(both.class_names) == 19
    with pytest.raises(FileNotFoundError, match=r"no split 'test'; looked for\n  cityscapes: has no such split"):
        open_segmentation_dataset(root, split="test")


def test_coco_stuff(make: Make, mask: Mask) -> None:
    make("164k/images/val2017/1.jpg"), make("164k/images/train2017/2.jpg")
    make("164k/annotations/val2017/1_labelTrainIds.png", mask(0, 170, 255))
    make("164k/annotations/train2017/2.png", mask(0, 181, 255))
    make("10k/images/test2014/3.jpg")
    root = make("10k/annotations/test2014/3_labelTrainIds.png", mask(0, 1, 171))
    for folder, split in (("164k", "val"), ("164k", "train"), ("10k", "val")):
        dataset = open_segmentation_dataset(root / folder, split=split)
        assert np.unique(dataset[0].target).tolist() == [0, 170, 255] and len(dataset.class_names) == 171


def test_lists_of_names(make: Make, mask: Mask) -> None:
    make("voc/VOCdevkit/VOC2010/JPEGImages/x.jpg")
    make("voc/VOCdevkit/VOC2010/SegmentationClassContext/x.png", mask(0, 59))
    make("nyu/image/7.png")
    root = make("nyu/label40/7.png", mask(0, 40))
    names = root / "voc/VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt"
    names.parent.mkdir(parents=True)
    names.write_text("x\n")
    (root / "nyu/test.txt").write_text("7\n\n")
    for folder, classes in (("voc", 59), ("nyu", 40)):
        dataset = open_segmentation_dataset(root / folder)
        assert len(dataset) == 1 and len(dataset.class_names) == classes
        assert np.unique(dataset[0].target).tolist() == [classes - 1, 255]
    names.write_text("x\ny\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 2: .*y\.jpg does not exist"):
        open_segmentation_dataset(root / "voc")
    names.write_text("../../x\n")
    assert open_segmentation_dataset(root / "voc").files[0].image.name == "x.jpg", "never out of its folder"
    names.write_text("../..\n")
    with pytest.raises(ValueError, match="line 1: expected the name"):
        open_segmentation_dataset(root / "voc")


def test_mapillary(make: Make, mask: Mask) -> None:
    make("training/images/a.jpg")
    root = make("training/v1.2/labels/a.png", mask(13, 52, 65))
    make("validation/images/b.jpg"), make("validation/labels/b.png", mask(24))
    dataset = open_segmentation_dataset(root, split="train+val", layout="mapillary")
    assert np.unique(dataset[0].target).tolist() == [0, 18, 255] and np.unique(dataset[1].target).tolist() == [0]
    assert open_segmentation_dataset(root, split="train").class_names[0] == "road"


@pytest.mark.parametrize(
    ("images", "masks"),
    [("train", "labels/train"), ("images/train", "masks/train"), ("train/images", "train/annotations")],
)
def test_own_data(make: Make, mask: Mask, images: str, masks: str) -> None:
    make(f"{images}/b.png"), make(f"{images}/a.jpg")
    make(f"{masks}/a.png", mask(0, 1)), make(f"{masks}/b.png", mask(1, 255))
    root = make(f"{images}/.hidden.png")
    with pytest.raises(ValueError, match=r"classes are not known; write their names into .*classes\.txt"):
        open_segmentation_dataset(root, split="train")
    (root / "classes.txt").write_text("ground\nhouse\n")
    dataset = open_segmentation_dataset(root, split="train")
    assert dataset.class_names == ("ground", "house") and len(dataset) == 2 and dataset[0].name.endswith("a.jpg")
    assert np.unique(dataset[1].target).tolist() == [1, 255]
    named = open_segmentation_dataset(root, split="train", class_names=["x", "y"])
    assert named.class_names == ("x", "y")
    paired = pair_folders(root / images, root / masks, class_names=root / "classes.txt")
    assert len(paired) == 2 and paired.class_names == ("ground", "house")


def test_a_class_list_means_own_data(make: Make, mask: Mask) -> None:
    """Even where the folders are called like those of a published data set."""
    make("images/training/a.jpg")
    root = make("annotations/training/a.png", mask(0, 1))
    assert np.unique(open_segmentation_dataset(root, split="train")[0].target).tolist() == [0, 255]
    (root / "classes.txt").write_text("ground\nhouse\n")
    assert np.unique(open_segmentation_dataset(root, split="train")[0].target).tolist() == [0, 1]
    assert len(open_segmentation_dataset(root, split="train", layout="ade20k").class_names) == 150


def test_colored_masks_with_a_palette(make: Make) -> None:
    colored = np.zeros((6, 8, 3), dtype=np.uint8)
    colored[:2], colored[2:4] = (255, 0, 0), (0, 0, 255)
    make("train/a.jpg")
    root = make("labels/train/a.png", colored)
    content = {"classes": ["ground", "house"], "palette": [[255, 0, 0], [0, 0, 255]]}
    (root / "classes.json").write_text(json.dumps(content | {"ignored_colors": [[0, 0, 0]]}))
    assert open_segmentation_dataset(root, split="train")[0].target[:, 0].tolist() == [0, 0, 1, 1, 255, 255]
    (root / "classes.json").write_text(json.dumps(content["classes"]))
    with pytest.raises(ValueError, match=r"a\.png: the mask is a colored image"):
        open_segmentation_dataset(root, split="train")[0]
    palette = ((255, 0, 0), (0, 0, 255))
    with pytest.raises(ValueError, match=r"color \(0, 0, 0\)"):
        open_segmentation_dataset(root, split="train", palette=palette)[0]


def test_broken_files_are_named(make: Make, mask: Mask) -> None:
    for name in ("a", "b", "c", "d"):
        make(f"val/{name}.jpg")
        root = make(f"labels/val/{name}.png", mask(0))
    make("labels/val/a.png", np.zeros((5, 8), np.uint8)), make("labels/val/b.png", mask(0, 2))
    (root / "labels/val/c.png").write_bytes(b"nothing")
    (root / "val/d.jpg").write_bytes(b"")
    dataset = open_segmentation_dataset(root, class_names=["x", "y"])
    reasons = [read_sample(dataset, i).reason for i in range(4)]  # type: ignore[union-attr]
    assert "a.png: the mask has (height, width) (5, 8), but its image" in reasons[0] and "(6, 8)" in reasons[0]
    assert "b.png: the mask holds the value 2" in reasons[1]
    assert "c.png" in reasons[2] and "d.jpg" in reasons[3]


def test_images_without_masks_are_refused(make: Make, mask: Mask) -> None:
    make("val/a.jpg"), make("val/b.jpg"), make("labels/val/b.jpg")
    root = make("labels/val/a.png", mask(0))
    with pytest.raises(ValueError, match=r"1 of 2 images have no mask: .*b\.jpg; looked for .*JPEG files cannot"):
        open_segmentation_dataset(root, class_names=["x"])
    (root / "labels/val/b.jpg").unlink()
    with pytest.raises(ValueError, match="add the masks"):
        open_segmentation_dataset(root, class_names=["x"])


def test_nothing_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_segmentation_dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError) as error:
        open_segmentation_dataset(tmp_path)
    for text in (
        "ade20k: images/validation + annotations/validation",
        "cityscapes: leftImg8bit/val",
        "folders: images/val",
    ):
        assert text in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"looked for images/val \+ labels/val"):
        open_segmentation_dataset(tmp_path, class_names=["x"])
    with pytest.raises(UnknownName, match="cityscapes"):
        open_segmentation_dataset(tmp_path, layout="cityscape")
    with pytest.raises(ValueError, match="has its own classes"):
        open_segmentation_dataset(tmp_path, layout="ade20k", class_names=["x"])
    with pytest.raises(ValueError, match="needs the names"):
        open_segmentation_dataset(tmp_path, palette=((0, 0, 0),))
    (tmp_path / "val").mkdir(), (tmp_path / "labels/val").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no images"):
        open_segmentation_dataset(tmp_path, class_names=["x"])
    with pytest.raises(FileNotFoundError, match="folders of the images"):
        pair_folders(tmp_path / "val", tmp_path / "masks", class_names=["x"])


def test_data_sets_check_their_arguments(tmp_path: Path) -> None:
    files = [MaskedImage(tmp_path / "a.jpg", tmp_path / "a.png", None)]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        SegmentationDataset([], ["x"])
    with pytest.raises(ValueError, match="1 colors"):
        SegmentationDataset(files, ["x"], palette=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match="different classes"):
        SegmentationDataset(files, ["x"]) + SegmentationDataset(files, ["y"])


DAMAGED = {
    "{": "no JSON",
    "3": "given int",
    '{"names": ["a"]}': "unknown entries names",
    '{"classes": []}': "at least one",
    '{"classes": ["a"], "palette": [[0, 0]]}': "three numbers",
    '{"classes": ["a"], "palette": [[0, 0, 256]]}': "three numbers",
    '{"classes": ["a"], "palette": 7}': "given int",
    '{"classes": ["a", "b"], "palette": [[0, 0, 0]]}': "2 colors",
    '{"classes": ["a", "b"], "palette": [[0, 0, 0], [0, 0, 0]]}': "one color",
}


@pytest.mark.parametrize(("text", "message"), DAMAGED.items())
def test_damaged_class_lists_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.json: .*{message}"):
        read_class_list(tmp_path / "classes.json")


@pytest.mark.parametrize(("text", "message"), [("", "at least one"), ("a\nb\na\n", "there twice: a")])
def test_damaged_lists_of_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.txt: .*{message}"):
        read_class_list(tmp_path / "classes.txt")


def test_masks_may_have_other_file_types(make: Make) -> None:
    root = make("val/a.jpg")
    (root / "labels/val").mkdir(parents=True)
    PIL.Image.new("L", (8, 6), 1).save(root / "labels/val/a.tif")
    assert open_segmentation_dataset(root, class_names=["x", "y"])[0].target.max() == 1
