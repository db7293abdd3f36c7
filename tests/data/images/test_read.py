from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.data.images.formats import FORMATS
from internimage.data.images.read import BadImage, read_rgb

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)  # (H, W, 3)


def pixels_of(source: object) -> np.ndarray:
    image = read_rgb(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def pgm16(values: np.ndarray, path: Path) -> Path:
    """A 16-bit PGM file, written by hand: older Pillow versions cannot."""
    height, width = values.shape
    path.write_bytes(f"P5 {width} {height} 65535\n".encode() + values.astype(">u2").tobytes())
    return path


def as_png(array: np.ndarray, path: Path, **options: object) -> Path:
    PIL.Image.fromarray(array).save(path, **options)
    return path


def huge_png(path: Path, height: int, width: int) -> Path:
    """A valid PNG header that announces many pixels, with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 64)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    path = as_png(PIXELS, tmp_path / "a.png")
    chw = torch.from_numpy(PIXELS).permute(2, 0, 1)
    for source in (path, str(path), PIL.Image.open(path), PIXELS, PIXELS[:, ::1], chw, chw.float() / 255):
        np.testing.assert_array_equal(pixels_of(source), PIXELS)
    np.testing.assert_array_equal(pixels_of((chw.double() / 255).requires_grad_()), PIXELS)
    np.testing.assert_array_equal(pixels_of(PIXELS[::-1, ::2]), PIXELS[::-1, ::2])
    # Half precision cannot hold every 255th exactly, but rounds to the right one.
    np.testing.assert_array_equal(pixels_of((chw.float() / 255).half()), PIXELS)


def test_gray_arrays_are_repeated_over_the_channels() -> None:
    np.testing.assert_array_equal(pixels_of(PIXELS[..., 0]), np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_modes_follow_pillow(mode: str) -> None:
    rgba = PIL.Image.fromarray(np.dstack([PIXELS, np.full_like(PIXELS[..., :1], 255)]))
    if mode == "La":
        source = rgba.convert("LA").convert("La")
    elif mode in ("RGBA", "RGBa", "LA"):
        source = rgba.convert(mode)
    else:
        source = rgba.convert("RGB").convert(mode)
    expected = source.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGB")
    np.testing.assert_array_equal(pixels_of(source), np.asarray(expected))


def test_alpha_is_dropped_not_blended() -> None:
    rgba = np.dstack([PIXELS, RNG.integers(0, 256, PIXELS.shape[:2], dtype=np.uint8)])
    np.testing.assert_array_equal(pixels_of(PIL.Image.fromarray(rgba)), PIXELS)


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))])
def test_palette_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    palette = PIL.Image.fromarray(PIXELS).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    path = tmp_path / "palette.png"
    palette.save(path, transparency=transparency)
    np.testing.assert_array_equal(pixels_of(path), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_files_are_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 257], [32768, 65278, 65535]], dtype=np.uint16)
    path = (pgm16 if suffix == "pgm" else as_png)(values, tmp_path / f"deep.{suffix}")
    np.testing.assert_array_equal(pixels_of(path)[..., 1], [[0, 0, 1], [128, 254, 255]])


def test_a_dark_16_bit_image_stays_dark(tmp_path: Path) -> None:
    for suffix in ("png", "pgm", "tif"):
        values = np.full((2, 2), 200, dtype=np.uint16)
        path = (pgm16 if suffix == "pgm" else as_png)(values, tmp_path / f"dark.{suffix}")
        assert pixels_of(path).max() == 1


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_byte_orders(mode: str) -> None:
    order = ">u2" if mode == "I;16B" else "<u2"
    data = np.array([[0, 25700], [51400, 65535]], dtype=order)
    image = PIL.Image.frombytes(mode, (2, 2), data.tobytes())
    np.testing.assert_array_equal(pixels_of(image)[..., 0], [[0, 100], [200, 255]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 7, 255]], dtype=np.int32), [0, 7, 255]),
        (np.array([[0, 257, 65535]], dtype=np.int32), [0, 1, 255]),
        (np.array([[0.0, 0.2, 1.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0.0, 51.4, 255.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0.0, 25700.0, 65535.0]], dtype=np.float32), [0, 100, 255]),
    ],
)
def test_32_bit_gray_takes_the_first_range_that_fits(values: np.ndarray, expected: list[int]) -> None:
    np.testing.assert_array_equal(pixels_of(PIL.Image.fromarray(values))[0, :, 0], expected)


@pytest.mark.parametrize("value", [-1.0, 70000.0, float("nan"), float("inf")])
def test_32_bit_gray_without_a_meaning_is_refused(value: float) -> None:
    with pytest.raises(BadImage, match="scale them to 8 bits"):
        read_rgb(PIL.Image.fromarray(np.array([[0.5, value]], dtype=np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[8:, :16] = (0, 255, 0)
    upright[:8, 16:] = (0, 0, 255)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, 3),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = tmp_path / f"turned.{suffix}"
    PIL.Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    for source in (path, PIL.Image.open(path)):
        found = pixels_of(source)
        assert found.shape == upright.shape
        assert np.abs(found.astype(int) - upright).max() <= 3


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    for suffix in ("gif", "webp", "png", "tif"):
        path = tmp_path / f"moving.{suffix}"
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert pixels_of(path)[0, 0].tolist() == [255, 0, 0]


def test_the_file_is_closed_and_may_vanish(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "gif", "tif", "webp"):
        path = as_png(PIXELS, tmp_path / f"a.{suffix}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            image = read_rgb(path)
            path.unlink()
            image.resize((3, 3)).tobytes()


# --- files that are no images -------------------------------------------------------------------


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("this is no image", encoding="utf-8")
    cases = {"missing.png": "no such file", "empty.png": "0 bytes", ".": "folder", "text.jpg": "no image"}
    for name, reason in cases.items():
        with pytest.raises(BadImage, match=reason) as caught:
            read_rgb(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="no regular file"):
        read_rgb(tmp_path / "pipe.png")


def test_names_the_system_cannot_look_up() -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(BadImage, match=r"cannot be opened|no such file"):
            read_rgb(name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif", "bmp"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = as_png(noise, tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"part.{suffix}"
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about cut TIFF tags
            with pytest.raises(BadImage, match=f"part.{suffix}"):
                read_rgb(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about damaged tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "PPM", "PCX", "TGA"])
def test_damaged_files_are_read_or_refused_with_their_name(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, kind)
    path = tmp_path / "damaged"
    refused = 0
    for _ in range(150):
        data = bytearray(buffer.getvalue())
        for place in RNG.integers(0, min(len(data), 80), 3):
            data[place] = RNG.integers(0, 256)
        path.write_bytes(data)
        try:
            read_rgb(path)
        except BadImage as error:
            assert str(path) in str(error)
            refused += 1
    assert refused


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(PIXELS).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pixels_of(path).shape == PIXELS.shape


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    for height, width in ((20_000, 20_000), (100_000, 100_000), (14_143, 14_143)):
        with pytest.raises(BadImage, match=r"more pixels .*limit of 200000000"):
            read_rgb(huge_png(tmp_path / "huge.png", height, width))
    limit = PIL.Image.MAX_IMAGE_PIXELS
    with pytest.raises(BadImage, match="limit of 53"):
        read_rgb(as_png(PIXELS, tmp_path / "a.png"), max_pixels=53)
    assert pixels_of(tmp_path / "a.png").shape == (6, 9, 3)
    assert limit == PIL.Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match="max_pixels"):
        read_rgb(tmp_path / "a.png", max_pixels=0)


def test_images_between_the_limits_of_pillow_and_ours_do_not_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp"):
        assert pixels_of(as_png(PIXELS, tmp_path / f"a.{suffix}")).shape == (6, 9, 3)
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    assert "EPS" not in FORMATS
    path = tmp_path / "a.eps"
    PIL.Image.fromarray(PIXELS).save(path)
    with pytest.raises(BadImage, match="no image of a known format"):
        read_rgb(path)


# --- arrays and tensors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((4, 4, 3), dtype=np.int64), "must be uint8"),
        (np.zeros((4, 4), dtype=bool), "must be uint8"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "channels first"),
        (np.zeros((8, 8, 4), dtype=np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "no pixels"),
        (np.zeros(8, dtype=np.uint8), r"\(H, W, 3\)"),
        (torch.zeros(8, 8, 3), r"\(3, H, W\)"),
        (torch.zeros(1, 3, 8, 8), "list"),
        (torch.zeros(3, 0, 8), "no pixels"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "uint8"),
        (torch.full((3, 8, 8), 255.0), "divide"),
        (torch.full((3, 8, 8), -0.5), "before normalization"),
        (torch.full((3, 8, 8), float("nan")), "0..1"),
        (PIL.Image.new("RGB", (0, 4)), "no pixels"),
    ],
)
def test_wrong_arrays_and_tensors(source: object, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        read_rgb(source)


@pytest.mark.parametrize("source", [None, 3, b"bytes", [1, 2], io.BytesIO()])
def test_other_types(source: object) -> None:
    with pytest.raises(TypeError, match="an image must be"):
        read_rgb(source)
