from __future__ import annotations

import logging
import os
from pathlib import Path

import PIL.Image
import pytest

from internimage.cli.predicting.sources import find_sources
from internimage.data import ImageFolder, open_dataset
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.data.listing import is_hidden, list_files, list_folders
from internimage.data.readers.open_objects import open_detection_dataset

SYSTEM_FOLDERS = (
    *(".ipynb_checkpoints", ".thumbnails", ".Trash-1000", "@eaDir", "@EADIR", "__MACOSX", "$RECYCLE.BIN"),
    *("System Volume Information", "#recycle", "lost+found"),
)


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (40, 40), (200, 30, 30)).save(path)
    return path


def with_system_folders(folder: Path, name: str) -> None:
    """Put a copy of an image into every kind of hidden folder, and a file of macOS beside it."""
    for hidden in SYSTEM_FOLDERS:
        image(folder / hidden / name)
        image(folder / hidden / "deeper" / name)
    image(folder / f"._{name}")


def test_hidden_and_system_entries_are_left_out_at_any_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / ".cache" / "@eaDir"  # the given folder may be called as it likes
    kept = [image(root / "a" / "1.png"), image(root / "a" / "deep" / "2.PNG"), image(root / "b.png")]
    with_system_folders(root, "x.png")
    with_system_folders(root / "a" / "deep", "x.png")
    (root / "notes.txt").touch()
    (root / ".DS_Store").touch()
    with caplog.at_level(logging.WARNING):
        assert list_files(root, {".png"}) == kept
    [record] = caplog.records
    count = 2 * (len(SYSTEM_FOLDERS) + 1)
    assert f"{root}: {count} hidden or system entries are left out: " in record.message
    assert list_files(root, {".png"}, recursive=False) == kept[2:]
    assert list_folders(root) == [root / "a"]


def test_names_of_people_are_kept() -> None:
    assert not any(map(is_hidden, ("recycled", "thumbs", "trash", "a.b", "~", "lost", "@home", "#1", "Icon")))


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/1.png", "a.b/1.png", "a/2.png", "a/10.png", "a.png", "B/1.png"):
        image(tmp_path / name)
    assert list_files(tmp_path, {".png"}) == sorted(tmp_path.rglob("*.png"))


def test_links_are_followed_once_and_loops_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    one, two = image(root / "z" / "1.png"), image(outside / "deep" / "2.png")
    (root / "a").symlink_to(root / "z")  # a second way to a folder: listed under its own place only
    (root / "m").symlink_to(outside)
    (root / "n").symlink_to(outside)
    (root / "file.png").symlink_to(one)
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "itself.png").symlink_to(root / "itself.png")
    (root / "z" / "loop").symlink_to(root)
    (root / "z" / "up").symlink_to(tmp_path)
    (outside / "back").symlink_to(root)
    (outside / "deep" / "loop").symlink_to("..")
    with caplog.at_level(logging.WARNING):
        found = list_files(root, {".png"})
    assert found == [root / "file.png", root / "m" / "deep" / "2.png", one]
    assert found[1].read_bytes() == two.read_bytes()
    assert "2 links lead nowhere and are left out: gone.png, itself.png" in caplog.text
    assert [folder.name for folder in list_folders(root / "z")] == []
    assert [folder.name for folder in list_folders(root)] == ["a", "m", "n", "z"]


def test_a_closed_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = image(tmp_path / "open" / "1.png")
    image(tmp_path / "closed" / "2.png")
    scan = os.scandir

    def refuse(path: Path) -> os.ScandirIterator[str]:  # root may open every folder
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with caplog.at_level(logging.WARNING):
        assert list_files(tmp_path, {".png"}) == [kept]
    assert "1 folders cannot be opened and are left out: closed" in caplog.text


def test_many_files_are_listed_fast(tmp_path: Path) -> None:
    for i in range(3000):
        (tmp_path / f"{i:05}.png").touch()
    assert [path.name for path in list_files(tmp_path, {".png"})] == [f"{i:05}.png" for i in range(3000)]


def test_a_missing_folder(tmp_path: Path) -> None:
    for listed in (list_files, list_folders):
        with pytest.raises(FileNotFoundError, match="is no folder"):
            listed(tmp_path / "gone")


def test_classification_leaves_hidden_folders_out(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png"):
        path = image(tmp_path / name)
        with_system_folders(path.parent, path.name)
    with_system_folders(tmp_path / "train", "x.png")
    linked = image(tmp_path / "elsewhere" / "e.png")
    (tmp_path / "train" / "cat" / "more").symlink_to(linked.parent)
    (tmp_path / "train" / "dog" / "loop").symlink_to(tmp_path / "train")
    train, val = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "val")
    assert isinstance(train, ImageFolder) and train.class_names == val.class_names == ("cat", "dog")
    assert [path.name for path, _ in train.files] == ["a.png", "e.png", "b.png"]
    assert len(val) == 2


def test_yolo_leaves_hidden_folders_out(tmp_path: Path) -> None:
    path = image(tmp_path / "images" / "val" / "a.png")
    with_system_folders(path.parent, path.name)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("val: images/val\nnames: [apple]\n")
    dataset = open_detection_dataset(tmp_path, "val")
    assert [dataset.file(i).name for i in range(len(dataset))] == ["a.png"]
    assert dataset.file(0) == path


def test_segmentation_leaves_hidden_folders_out(tmp_path: Path) -> None:
    path = image(tmp_path / "images" / "val" / "a.png")
    with_system_folders(path.parent, path.name)
    mask = tmp_path / "masks" / "val" / "a.png"
    mask.parent.mkdir(parents=True)
    PIL.Image.new("L", (40, 40), 1).save(mask)
    with_system_folders(mask.parent, mask.name)
    (tmp_path / "classes.txt").write_text("ground\napple\n")
    dataset = open_segmentation_dataset(tmp_path, split="val")
    assert [(file.image, file.mask) for file in dataset.files] == [(path, mask)]


def test_prediction_leaves_hidden_folders_out(tmp_path: Path) -> None:
    path = image(tmp_path / "deep" / "a.png")
    with_system_folders(tmp_path, "x.png")
    with_system_folders(path.parent, "x.png")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "deep" / "other").symlink_to(tmp_path / "deep")  # two loops: as many ways as there are atoms
    for text in ("", "/**/*.png", "/**", "/*/*.png", "/deep/?.png", "/[!x]*/a.*"):
        assert find_sources([f"{tmp_path}{text}"]) == [path], text
    explicit = tmp_path / "@eaDir" / "x.png"
    assert find_sources([f"{tmp_path}/@eaDir/*.png"]) == [explicit]
    assert find_sources([str(explicit)]) == [explicit]
    assert find_sources([f"{tmp_path}/nothing/*.png"]) == []
