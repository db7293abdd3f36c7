from __future__ import annotations

import gzip
import io
import logging
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from internimage.data import open_dataset, read_sample
from internimage.data.dataset import Unreadable
from internimage.data.readers.open_labels import open_whole
from internimage.data.untrusted import archives
from internimage.data.untrusted.archives import DamagedArchive, list_members
from internimage.data.untrusted.problems import ProblemLog
from tests.data.readers.shards.conftest import Write, jpeg

GOOD = {"ant/1.jpg": jpeg(1), "bee/2.jpg": jpeg(2)}


def left_out(path: Path) -> tuple[list[str], str]:
    """Return the members that are kept, and what is said of the others."""
    problems = ProblemLog("leave_out")
    kept = [member.name for member in list_members(path, problems)]
    return kept, "\n".join(map(str, problems.problems))


@pytest.mark.parametrize("name", ["../ant/3.jpg", "/etc/ant/3.jpg", "ant/../../3.jpg", r"ant\..\3.jpg", "C:/3.jpg"])
def test_names_that_lead_out(tar: Write, tmp_path: Path, name: str) -> None:
    path = tar("a.tar", {**GOOD, name: jpeg(3)})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file, content in {**GOOD, name: jpeg(3)}.items():
            archive.writestr(file, content)
    for file in (path, tmp_path / "a.zip"):
        kept, said = left_out(file)
        assert kept == list(GOOD) and "leads out of the archive" in said and "3.jpg" in said
        whole = open_whole(file)
        assert whole is not None and len(whole) == 2


def test_links_devices_and_sparse_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file, content in GOOD.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"ant/link{i}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    kept, said = left_out(tmp_path / "a.tar")
    assert kept == list(GOOD) and said.count("this is no plain file") == 4


def test_a_name_is_there_once(tar: Write, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (jpeg(1), jpeg(2)):
            info = tarfile.TarInfo("ant/1.jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    kept, said = left_out(tmp_path / "a.tar")
    assert kept == ["ant/1.jpg"] and "a file of this name is there already" in said


def test_hidden_files_are_no_images(tar: Write) -> None:
    path = tar("a.tar", {**GOOD, "__MACOSX/ant/._1.jpg": b"x", "ant/._1.jpg": b"x", ".git/a/1.jpg": b"x"})
    assert left_out(path) == (list(GOOD), "")


def test_huge_members(tar: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 5000)
    kept, said = left_out(tar("a.tar", {**GOOD, "ant/3.jpg": bytes(5001)}))
    assert kept == list(GOOD) and "5001 bytes, more than the limit of 5000" in said


def test_a_bomb_gives_no_more_than_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*GOOD.items(), ("bee/3.jpg", bytes(50 << 20))):
            archive.writestr(name, content)
    content = path.read_bytes()
    size = struct.pack("<I", 50 << 20)
    assert content.count(size) == 2  # in front of the file, and in the list at the end
    path.write_bytes(content.replace(size, struct.pack("<I", 4000)))
    dataset = open_whole(path)
    assert dataset is not None
    entry = read_sample(dataset, 2)
    assert isinstance(entry, Unreadable) and "bee/3.jpg: the file is not what the archive says" in entry.reason
    assert dataset[1].image.size == (40, 30)


def test_damaged_members_of_zip_files(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in GOOD.items():
                archive.writestr(name, content)
        content = bytearray(path.read_bytes())
        content[200:260] = bytes(60)
        path.write_bytes(content)
        dataset = open_whole(path)
        assert dataset is not None
        entry = read_sample(dataset, 0)
        assert isinstance(entry, Unreadable) and "ant/1.jpg: the file is" in entry.reason
        assert dataset[1].target == 1


def test_encrypted_and_strange_zip_files(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
        archive.writestr(zipfile.ZipInfo("ant/3.jpg"), jpeg(3), zipfile.ZIP_BZIP2)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"PK\x01\x02")
    assert left_out(path)[0] == list(GOOD) and "use plain zip" in left_out(path)[1]
    content[last + 8] |= 1
    path.write_bytes(content)
    assert left_out(path)[0] == list(GOOD) and "encrypted" in left_out(path)[1]


@pytest.mark.parametrize("start", [1024, 1030, 4000])
def test_a_damaged_or_cut_tar_is_refused(tar: Write, start: int) -> None:
    path = tar("train.tar", {f"ant/{i}.jpg": jpeg(i) for i in range(6)})
    with tarfile.open(path) as archive:
        third = archive.getmembers()[2]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[third.offset : third.offset + 300] = b"\xff" * 300
    path.write_bytes(damaged)
    with pytest.raises(DamagedArchive, match=rf"damaged at byte {third.offset}"):
        open_whole(path.parent)
        open_dataset(path.parent, "train")
    path.write_bytes(whole[:start])
    with pytest.raises(DamagedArchive, match="copy it again"):
        open_dataset(path.parent, "train")


def test_what_is_no_tar(tmp_path: Path, tar: Write) -> None:
    path = tmp_path / "x" / "train.tar"
    path.parent.mkdir()
    for content in (b"x" * 5000, jpeg(1), b"PK\x03\x04" + bytes(600)):
        path.write_bytes(content)
        with pytest.raises(DamagedArchive, match="no tar archive, or damaged"):
            open_dataset(path.parent, "train")
    path.write_bytes(gzip.compress(tar("b.tar", GOOD).read_bytes()))
    with pytest.raises(DamagedArchive, match=r"packed as a whole \(gzip\).*unpack it"):
        open_dataset(path.parent, "train")
    path.unlink()
    path.with_suffix(".zip").write_bytes(b"PK\x03\x04" + bytes(600))
    with pytest.raises(DamagedArchive, match="no zip file, or damaged"):
        open_dataset(path.parent, "train")


def test_a_long_name_of_gigabytes_is_no_name(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 20
    path = tmp_path / "train.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"a" * (3 << 20) + bytes(1024))
    with pytest.raises(DamagedArchive, match="a header of"):
        open_dataset(tmp_path, "train")


def test_shards_without_labels(tar: Write, tmp_path: Path) -> None:
    tar("train-0.tar", {"1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    with pytest.raises(ValueError, match=r"1\.jpg: nothing says of which class .* \(1\.cls with .* or one folder for"):
        open_dataset(tmp_path, "train")
    tar("train-0.tar", {"1.txt": b"no image"})
    with pytest.raises(ValueError, match="holds no image; expected images with labels"):
        open_dataset(tmp_path, "train")


def test_missing_and_broken_labels_are_named(tar: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = {"2.cls": b"\xff\xfe\xff", "3.json": b"{", "4.json": b"[" * 100_000, "5.json": b"{}", "6.cls": b""}
    tar("train-0.tar", {**{f"{i}.jpg": jpeg(i) for i in range(8)}, **labels, "0.cls": b"0", "7.cls": b"1"})
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset(tmp_path, "train")
    assert [dataset[i].target for i in range(len(dataset))] == [0, 1]
    said = caplog.text
    assert "6 broken annotations" in said and all(f"'{i}.jpg'" in said for i in range(1, 7))


def test_labels_of_two_kinds_or_out_of_range(tar: Write, tmp_path: Path) -> None:
    files = {f"{i}.jpg": jpeg(i) for i in range(2)}
    tar("train-0.tar", {**files, "0.cls": b"0", "1.cls": b"cat"})
    with pytest.raises(ValueError, match=r"some labels are numbers \(0\), others are names \('cat'\)"):
        open_dataset(tmp_path, "train")
    tar("train-0.tar", {**files, "0.cls": b"0", "1.json": b'{"label": -3}'})
    with pytest.raises(ValueError, match="class number -3"):
        open_dataset(tmp_path, "train")
    tar("train-0.tar", {**files, "0.cls": b"0", "1.json": b'{"label": 123456789012345}'})
    with pytest.raises(ValueError, match="class number 123456789012345; expected"):
        open_dataset(tmp_path, "train")
    tar("train-0.tar", {**files, "0.cls": b"0", "1.cls": b"3"})
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match=r"class number 3; expected 0\.\.1"):
        open_dataset(tmp_path, "train")
