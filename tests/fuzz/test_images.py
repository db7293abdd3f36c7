"""Damaged, strange and hostile images: each is read or refused by name, within seconds, without a line on stderr."""

from __future__ import annotations

import io
import random
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import pytest
import tifffile
import torch

from internimage.backbones import variant
from internimage.classification import ClassificationPreprocess, Classifier, ClassifierConfig
from internimage.data.images import decoder_notes
from internimage.data.images.raster import Reading, pixels_of
from internimage.data.images.read import BadImage, image_size, read_image
from tests.fuzz.mutations import mutated

SHORT, LONG = 8, 100  # damaged files of each kind
SECONDS = 10  # for one of them, on a busy machine
RGB = np.random.default_rng(0).integers(0, 256, (37, 52, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (37, 52, 4), dtype=np.uint16)


def saved(kind: str, image: np.ndarray = RGB, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(image)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def bands(**options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, DEEP, photometric="minisblack", planarconfig="contig", **options)
    return buffer.getvalue()


def array(save: str) -> bytes:
    buffer = io.BytesIO()
    getattr(np, save)(buffer, DEEP)
    return buffer.getvalue()


def exif() -> bytes:
    tags = PIL.Image.Exif()
    tags[0x0112], tags[0x010E], tags[0x8769] = 6, "a description", {0x9003: "2026:11:27 12:00:00"}
    return tags.tobytes()


# Name of the kind: (suffix, channels that are asked for, an undamaged file).
SEEDS: dict[str, tuple[str, int, bytes]] = {
    "png": (".png", 3, saved("PNG")),
    "png palette": (".png", 3, saved("PNG", mode="P")),
    "png 16 bits": (".png", 1, saved("PNG", DEEP[..., 0])),
    "jpeg": (".jpg", 3, saved("JPEG")),
    "jpeg progressive, exif": (".jpg", 3, saved("JPEG", progressive=True, exif=exif())),
    "jpeg cmyk": (".jpg", 3, saved("JPEG", mode="CMYK")),
    "jpeg icc": (".jpg", 3, saved("JPEG", icc_profile=b"\0\0\2\x0clcms" + b"\0" * 516)),
    "webp": (".webp", 3, saved("WEBP")),
    "webp lossless, exif": (".webp", 3, saved("WEBP", lossless=True, exif=exif())),
    "gif": (".gif", 3, saved("GIF", save_all=True, append_images=[PIL.Image.new("RGB", (52, 37))])),
    "tiff": (".tif", 3, saved("TIFF", exif=exif())),
    "tiff lzw": (".tif", 3, saved("TIFF", compression="tiff_lzw")),
    "tiff jpeg": (".tif", 3, saved("TIFF", compression="jpeg")),
    "tiff group 4": (".tif", 1, saved("TIFF", mode="1", compression="group4")),
    "tiff bands": (".tif", 4, bands()),
    "tiff bands deflate": (".tif", 4, bands(compression="zlib", predictor=2)),
    "bmp": (".bmp", 3, saved("BMP")),
    "ppm": (".ppm", 3, saved("PPM")),
    "tga": (".tga", 3, saved("TGA", compression="tga_rle")),
    "pcx": (".pcx", 3, saved("PCX")),
    "sgi": (".sgi", 3, saved("SGI")),
    "qoi": (".qoi", 3, saved("QOI")) if "QOI" in PIL.Image.SAVE else (".qoi", 3, b"qoif"),
    "jpeg 2000": (".jp2", 3, saved("JPEG2000")) if PIL.features.check("jpg_2000") else (".jp2", 3, b"\xffO\xffQ"),
    "avif": (".avif", 3, saved("AVIF")) if PIL.features.check("avif") else (".avif", 3, b"\0\0\0 ftypavif"),
    "npy": (".npy", 4, array("save")),
    "npz": (".npz", 4, array("savez_compressed")),
}


@pytest.fixture(scope="module")
def classifiers() -> dict[int, Classifier]:
    torch.manual_seed(0)
    return {
        channels: Classifier(
            ClassifierConfig(
                backbone=variant("internimage_pico").__class__(8, (1, 1, 1, 1), (1, 1, 1, 1), in_chans=channels),
                num_classes=2,
                preprocess=ClassificationPreprocess(32, mean=(0.5,) * channels, std=(0.25,) * channels),
            )
        )
        for channels in (1, 3, 4)
    }


@pytest.fixture(autouse=True)
def _fresh_notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What decoders note goes to the log; a warning of Python would be a line on stderr, and is an error here."""
    monkeypatch.setattr(decoder_notes, "_reported", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def attack(path: Path, channels: int, model: Classifier) -> bool:
    """Read a file in every way; return whether it could be read. Else it must be refused by name."""
    started = time.monotonic()
    answered = False
    try:
        image = read_image(path, Reading(channels))
        assert pixels_of(image).shape[2] == channels and min(image.size) >= 1
        answered = True
    except BadImage as error:
        assert str(path) in str(error) and len(str(error)) < 1000
    try:
        assert min(image_size(path)) >= 1
    except BadImage as error:
        assert str(path) in str(error)
    try:
        [found] = model.predict([path])
        assert answered and found.scores.isfinite().all()
    except BadImage:
        assert not answered
    assert time.monotonic() - started < SECONDS, f"{path} takes long"
    return answered


def run(kind: str, count: int, folder: Path, models: dict[int, Classifier]) -> int:
    suffix, channels, seed = SEEDS[kind]
    rng = random.Random(f"images {kind}")
    path = folder / f"damaged{suffix}"
    answered = 0
    for _ in range(count):
        path.write_bytes(mutated(seed, rng))
        answered += attack(path, channels, models[channels])
    return answered


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_images(
    kind: str, tmp_path: Path, classifiers: dict[int, Classifier], capfd: pytest.CaptureFixture[str]
) -> None:
    run(kind, SHORT, tmp_path, classifiers)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_many_damaged_images(
    kind: str, tmp_path: Path, classifiers: dict[int, Classifier], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(kind, LONG, tmp_path, classifiers) < LONG
    assert capfd.readouterr().err == ""


def test_the_undamaged_files_are_read(tmp_path: Path, classifiers: dict[int, Classifier]) -> None:
    for kind, (suffix, channels, seed) in SEEDS.items():
        (tmp_path / f"whole{suffix}").write_bytes(seed)
        is_there = len(seed) > 16
        assert attack(tmp_path / f"whole{suffix}", channels, classifiers[channels]) == is_there, kind


# --- bombs: small files that announce large images ------------------------------------------------


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    wide = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
    tiff = bytearray(saved("TIFF"))
    for tag in (256, 257):  # width and height
        place = tiff.index(struct.pack("<HH", tag, 4 if struct.pack("<HH", tag, 4) in tiff else 3))
        tiff[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 2**20)
    jpeg = bytearray(saved("JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    header = array("save")
    return {
        "png of 2**31.png": png(2**31 - 1, 2**31 - 1, b"\0"),
        "png of 15000.png": png(15_000, 15_000, b"\0"),
        "png cut.png": png(14_000, 14_000, b"\0" * 20_000),
        "bmp.bmp": wide,
        "tiff.tif": bytes(tiff),
        "jpeg.jpg": bytes(jpeg),
        "gif.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\xff\0",
        "ppm.ppm": b"P6 99999 99999 255\n\0",
        "array.npy": header.replace(b"(37, 52, 4), }", b"(99999, 99999)}"),
        "long array.npy": header.replace(b"(37, 52, 4)", b"(9999, 999)"),
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_by_name(name: str, tmp_path: Path, classifiers: dict[int, Classifier]) -> None:
    (tmp_path / name).write_bytes(bombs()[name])
    assert not attack(tmp_path / name, 3, classifiers[3])
