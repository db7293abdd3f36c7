"""What Pillow and libtiff have to say comes as one line with the name of the file, or not at all."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data.images import decoder_notes
from internimage.data.images.read import BadImage, read_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_notes, "_reported", set())


def strange_jpeg(path: Path) -> Path:
    """A JPEG file whose EXIF block ends too early: Pillow warns and reads the pixels."""
    PIL.Image.fromarray(PIXELS).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05")
    return path


def test_a_note_names_the_file_and_comes_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = strange_jpeg(tmp_path / "strange.jpg")
    with caplog.at_level(logging.WARNING, logger="internimage"):
        for _ in range(3):
            read_rgb(path)
    [record] = caplog.records
    assert record.getMessage().startswith(f"{path}: read, but the decoder notes: ")
    assert "\n" not in record.getMessage() and capfd.readouterr().err == ""


def test_many_strange_files_do_not_fill_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="internimage"):
        for i in range(30):
            read_rgb(strange_jpeg(tmp_path / f"{i}.jpg"))
    assert len(caplog.records) == decoder_notes.MAX_REPORTED + 1
    assert "those of further files are not shown" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_libtiff_writes_nothing_to_stderr(tmp_path: Path, compression: str) -> None:
    """In a process of its own, as the printing is switched off once for all; without it, libtiff complains there."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, "TIFF", compression=compression)
    data = bytearray(buffer.getvalue())
    data[200:4000] = b"\xff\xfe" * 1900
    path = tmp_path / "damaged.tif"
    path.write_bytes(data)
    code = """
import sys
from internimage.data.images.read import BadImage, read_rgb
try:
    read_rgb(sys.argv[1])
except BadImage as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == "" and (done.stdout == "" or done.stdout.startswith(str(path)))


def test_the_library_is_found_where_the_wheel_brings_it() -> None:
    places = Path(PIL.__file__).parents[1] / "pillow.libs"
    assert decoder_notes.silence_libtiff() == any(places.glob("libtiff*")) or sys.platform != "linux"


def test_errors_are_no_notes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(BadImage, match=r"a\.tif"):
        read_rgb(tmp_path / "a.tif")
    assert not caplog.records
