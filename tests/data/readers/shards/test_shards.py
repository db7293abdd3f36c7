from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch.utils.data

from internimage.data import ImageDataset, Unreadable, open_dataset, read_sample
from internimage.data.fingerprint import DataFingerprint
from internimage.data.images.image_file import BadImage
from internimage.data.readers.open_labels import open_whole
from internimage.data.readers.shards.write import ShardSettings, write_shards
from internimage.data.untrusted.archives import DamagedArchive
from tests.data.readers.shards.conftest import Write, jpeg

SMALL = ShardSettings(max_bytes=6000)


def same(a: ImageDataset[int], b: ImageDataset[int], order: np.ndarray | None = None) -> bool:
    """Whether two data sets hold the same pixels and classes, in the given order."""
    pairs = zip(range(len(a)), range(len(a)) if order is None else order.tolist(), strict=True)
    return (
        a.class_names == b.class_names
        and len(a) == len(b)
        and all(
            a[i].target == b[j].target and np.array_equal(np.asarray(a[i].image), np.asarray(b[j].image))
            for i, j in pairs
        )
    )


def test_shards_hold_what_the_folders_hold(folders: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    index = write_shards(folders, tmp_path / "shards", SMALL, progress=lambda done, of: seen.append((done, of)))
    shards = index.parts["train"]
    assert len(shards) > 2 and sum(shard.images for shard in shards) == 12 and seen[-1] == (15, 15)
    for shard in shards:
        content = (tmp_path / "shards" / shard.file).read_bytes()
        assert len(content) == shard.bytes and hashlib.sha256(content).hexdigest() == shard.sha256
    for part in ("train", "val"):
        assert same(open_dataset(tmp_path / "shards", part), open_dataset(folders, part))
    assert open_dataset(tmp_path / "shards", "train").class_names == ("ant", "bee", "cat")
    with pytest.raises(FileNotFoundError, match="'train', 'val' but none of test"):
        open_dataset(tmp_path / "shards", "test")


def test_without_the_index_they_are_shards_of_webdataset(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    write_shards(folders, out, SMALL)
    (out / "index.json").unlink()
    (out / "classes.txt").write_text("ant\nbee\ncat\n")
    assert same(open_dataset(out, "train"), open_dataset(folders, "train"))
    (out / "classes.txt").unlink()
    assert open_dataset(out, "val").class_names == ("0", "1", "2")


def test_a_seed_shuffles(folders: Path, tmp_path: Path) -> None:
    write_shards(folders, tmp_path / "shards", ShardSettings(6000, seed=3))
    order = np.random.default_rng(3).permutation(12)
    assert same(open_dataset(tmp_path / "shards", "train"), open_dataset(folders, "train"), order)


def test_shards_of_shards_are_the_same_bytes(folders: Path, tmp_path: Path) -> None:
    write_shards(folders, tmp_path / "a", SMALL)
    write_shards(tmp_path / "a", tmp_path / "b", SMALL)
    for path in (tmp_path / "a").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_data_set_without_parts_stays_one(folders: Path, tmp_path: Path) -> None:
    write_shards(folders / "train", tmp_path / "shards")
    whole = open_whole(tmp_path / "shards")
    assert whole is not None and same(whole, open_dataset(folders, "train"))
    assert open_whole(folders) is None


WRITE = """
import sys, time
from pathlib import Path
from internimage.data.labeled_files import LabeledFiles
from internimage.data.readers.shards.write import ShardSettings, write_shards
read = LabeledFiles.content
def slow(self, index):
    time.sleep(0.02)
    return read(self, index)
LabeledFiles.content = slow
print("starts", flush=True)
write_shards(sys.argv[1], sys.argv[2], ShardSettings(6000, seed=1))
"""


@pytest.mark.parametrize("wait", [0.03, 0.12, 0.2])
def test_a_killed_run_goes_on(folders: Path, tmp_path: Path, wait: float) -> None:
    out = tmp_path / "shards"
    command = [sys.executable, "-c", WRITE, str(folders), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
    with pytest.raises((ValueError, FileNotFoundError)):
        open_dataset(out, "train")
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json") if path.name[:5] in ("train", "val-0")}
    settings = ShardSettings(6000, seed=1)
    write_shards(folders, out, settings)
    write_shards(folders, tmp_path / "whole", settings)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all((out / name).stat().st_mtime_ns == before for name, before in written.items())


def test_other_data_or_settings_are_refused(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    write_shards(folders, out, SMALL)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert write_shards(folders, out, SMALL).parts["train"]
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(ValueError, match="other data or with other settings"):
        write_shards(folders, out, ShardSettings(7000))
    (folders / "train/ant/0.jpg").write_bytes(jpeg(99))
    with pytest.raises(ValueError, match="other data or with other settings"):
        write_shards(folders, out, SMALL)


def test_parts_of_other_classes_are_not_written_together(folders: Path, tmp_path: Path) -> None:
    (folders / "train").rename(folders / "test")
    shutil.rmtree(folders / "test" / "ant")
    with pytest.raises(ValueError, match=r"the part 'test' of .* has other classes"):
        write_shards(folders, tmp_path / "shards")
    with pytest.raises(FileNotFoundError, match="give the folder of the data set"):
        write_shards(tmp_path / "missing", tmp_path / "shards")


def test_unreadable_files_are_named_and_bounded(folders: Path, tmp_path: Path) -> None:
    (folders / "train/bee/1.jpg").write_bytes(b"")
    index = write_shards(folders, tmp_path / "shards", ShardSettings(6000, max_unreadable=1))
    assert index.left_out == ("train/bee/1.jpg: the file is empty (0 bytes)",) or "bee/1.jpg" in index.left_out[0]
    assert len(open_dataset(tmp_path / "shards", "train")) == 11
    with pytest.raises(ValueError, match=r"more than 0 images cannot be read.*\n.*bee/1\.jpg"):
        write_shards(folders, tmp_path / "none", ShardSettings(6000, max_unreadable=0))


def test_damage_is_seen_before_work_starts(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    index = write_shards(folders, out, SMALL)
    shard = out / index.parts["train"][1].file
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(DamagedArchive, match=rf"{shard.name}: index.json lists it with {len(whole)} bytes, but"):
        open_dataset(out, "train")
    shard.unlink()
    with pytest.raises(DamagedArchive, match="it is missing"):
        open_dataset(out, "train")
    shard.write_bytes(whole)
    rows = json.loads(shard.with_suffix(".json").read_text())
    good = rows["images"][0]
    for wrong in (
        {"start": -1},
        {"size": 1 << 40},
        {"start": "0"},
        {"name": ["a"]},
        {"taken": [1]},
        {"taken": ["x"] * 3},
    ):
        change = {**good, **wrong}
        shard.with_suffix(".json").write_text(json.dumps({**rows, "images": [change, *rows["images"][1:]]}))
        with pytest.raises(DamagedArchive, match="is no list of the images in"):
            open_dataset(out, "train")
    shard.with_suffix(".json").write_text(json.dumps(rows))
    content = json.loads((out / "index.json").read_text())
    for broken in ({"classes": [1]}, {"parts": {"train": [{"file": "../a.tar"}]}}, {"parts": {"dogs": []}}):
        (out / "index.json").write_text(json.dumps({**content, **broken}))
        with pytest.raises(ValueError, match=r"index\.json is damaged"):
            open_dataset(out, "train")


def test_a_corrupt_image_is_counted_and_named(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    write_shards(folders, out)
    row = json.loads((out / "train-00000.json").read_text())["images"][3]
    content = bytearray((out / "train-00000.tar").read_bytes())
    content[row["start"] : row["start"] + row["size"]] = bytes(row["size"])
    (out / "train-00000.tar").write_bytes(content)
    dataset = open_dataset(out, "train")
    entry = read_sample(dataset, 3)
    assert isinstance(entry, Unreadable) and "train-00000.tar/00000003.jpg" in entry.reason
    with pytest.raises(BadImage):
        dataset[3]
    assert dataset[2].image.size == (40, 30)


def test_images_of_no_file_become_png(tmp_path: Path) -> None:
    from tests.data.test_datasets import idx, packed

    images = np.arange(6 * 28 * 28).reshape(6, 28, 28) % 251
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(packed(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array([0, 9, 3, 3, 1, 2])))
    write_shards(tmp_path, tmp_path / "shards")
    assert same(open_dataset(tmp_path / "shards", "train"), open_dataset(tmp_path, "train"))
    assert len(open_dataset(tmp_path / "shards", "val")) == 6  # the test part stands in


def test_workers_read_from_one_archive(folders: Path, tmp_path: Path) -> None:
    write_shards(folders, tmp_path / "shards")
    dataset = open_dataset(tmp_path / "shards", "train")

    class Pixels(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            sample = dataset[index]
            return np.array(sample.image), sample.target

    loader = torch.utils.data.DataLoader(Pixels(), batch_size=5, num_workers=2, generator=torch.Generator())
    read = [(image, int(label)) for images, labels in loader for image, label in zip(images, labels, strict=True)]
    for i, (image, label) in enumerate(read):
        assert label == dataset[i].target and np.array_equal(image, np.asarray(dataset[i].image))


def test_a_fingerprint_knows_the_shards(folders: Path, tmp_path: Path) -> None:
    write_shards(folders, tmp_path / "a")
    write_shards(folders, tmp_path / "b")
    first, second = (DataFingerprint.of(open_dataset(tmp_path / name, "train")) for name in "ab")
    assert first == second
    os.utime(tmp_path / "b" / "train-00000.tar", (0, 0))
    assert DataFingerprint.of(open_dataset(tmp_path / "b", "train")) == first


def test_labels_beside_images(tar: Write, tmp_path: Path) -> None:
    tar("wds/train-0.tar", {"a/1.jpg": jpeg(1), "a/1.cls": b"1", "a/2.jpg": jpeg(2), "a/2.json": b'{"label": 0}'})
    tar("wds/train-1.tar", {"3.jpg": jpeg(3), "3.cls": b"2\n", "4.png.txt": b"", "5.JPEG": jpeg(5), "5.cls": b"0"})
    tar("wds/validation-0.tar", {"1.jpg": jpeg(1), "1.cls": b"1"})
    train, val = open_dataset(tmp_path / "wds", "train"), open_dataset(tmp_path / "wds", "val")
    assert [train[i].target for i in range(len(train))] == [1, 0, 2, 0] and train.class_names == ("0", "1", "2")
    assert val[0].target == 1 and val.class_names == train.class_names


def test_labels_as_names(tar: Write, tmp_path: Path) -> None:
    tar("wds/train-0.tar", {"1.jpg": jpeg(1), "1.cls": b"cat", "2.jpg": jpeg(2), "2.json": b'{"class_name": "ant"}'})
    tar("wds/val-0.tar", {"1.jpg": jpeg(1), "1.cls": b"cat"})
    assert open_dataset(tmp_path / "wds", "train").class_names == ("ant", "cat")
    assert open_dataset(tmp_path / "wds", "val")[0].target == 1
    tar("wds/val-0.tar", {"1.jpg": jpeg(1), "1.cls": b"dog"})
    with pytest.raises(ValueError, match="no class of this data set: 'dog'"):
        open_dataset(tmp_path / "wds", "val")
    tar("wds/val-0.tar", {"1.jpg": jpeg(1), "1.cls": b"7"})
    with pytest.raises(ValueError, match=r"class number 7; expected 0\.\.1"):
        open_dataset(tmp_path / "wds", "val")


def test_one_archive_of_class_folders(folders: Path, tmp_path: Path) -> None:
    for kind in ("tar", "zip"):
        for name, base in (("whole", "."), ("below", "folders")):
            root = folders if base == "." else folders.parent
            archive = shutil.make_archive(str(tmp_path / f"{name}_{kind}"), kind, root, base)
            for part in ("train", "val"):
                assert same(open_dataset(archive, part), open_dataset(folders, part))
        archive = shutil.make_archive(str(tmp_path / f"classes_{kind}"), kind, folders / "train")
        whole = open_whole(Path(archive))
        assert whole is not None and same(whole, open_dataset(folders, "train"))
    (tmp_path / "zips").mkdir()
    for part in ("train", "val"):
        shutil.make_archive(str(tmp_path / "zips" / part), "zip", folders / part)
        assert same(open_dataset(tmp_path / "zips", part), open_dataset(folders, part))


def test_archives_beside_unpacked_folders_are_copies(folders: Path, tar: Write) -> None:
    tar("folders/train.tar", {"1.jpg": jpeg(1)})
    assert len(open_dataset(folders, "train")) == 12
