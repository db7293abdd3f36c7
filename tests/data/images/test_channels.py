"""Images of any number of channels and of more than 8 bits: files, arrays and tensors give the same pixels."""

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from PIL.Image import Resampling

from internimage.data import ImageFolder, Selection, read_as
from internimage.data.images import value_range as value_range_module
from internimage.data.images.raster import Raster, Reading, pixels_of
from internimage.data.images.read import BadImage, image_size, read_image, read_rgb

RNG = np.random.default_rng(0)
FOUR = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)  # (H, W, C)


def read(source: Any, channels: int, value_range: tuple[float, float] | None = None) -> np.ndarray:
    return pixels_of(read_image(source, Reading(channels, value_range)))


def test_every_source_of_four_channels_gives_the_same_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FOUR)
    np.savez(tmp_path / "a.npz", image=FOUR, other=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", FOUR)
    PIL.Image.fromarray(FOUR).save(tmp_path / "a.png")
    PIL.Image.fromarray(FOUR).save(tmp_path / "pillow.tif")
    PIL.Image.fromarray(FOUR).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    frames = [PIL.Image.fromarray(np.ascontiguousarray(FOUR[..., i])) for i in range(4)]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    tifffile.imwrite(tmp_path / "rgbx.tif", FOUR, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "rgba.tif", FOUR, photometric="rgb", extrasamples=["assocalpha"])
    tifffile.imwrite(tmp_path / "gray.tif", FOUR, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "planes.tif", FOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(
        tmp_path / "deflate.tif", FOUR, photometric="minisblack", planarconfig="contig", compression="zlib"
    )
    chw = torch.from_numpy(FOUR).permute(2, 0, 1)
    arrays = [FOUR, FOUR.astype(np.uint16) * 257, FOUR.astype(np.float32) / 255, FOUR.astype(np.float64) / 255]
    for source in (*sorted(tmp_path.iterdir()), *arrays, chw, chw.float() / 255, PIL.Image.fromarray(FOUR)):
        np.testing.assert_array_equal(read(source, 4), FOUR, err_msg=str(source))
    for path in tmp_path.iterdir():
        assert image_size(path) == (6, 9), path


@pytest.mark.parametrize("channels", [2, 5, 13])
def test_other_numbers_of_bands(tmp_path: Path, channels: int) -> None:
    values = RNG.integers(0, 65536, (5, 8, channels), dtype=np.uint16)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "big_endian.npy", values.astype(">u2"))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(values))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "b.tif", values.transpose(2, 0, 1), photometric="minisblack")
    expected = np.rint(values * np.float32(255 / 65535)).astype(np.uint8)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read(path, channels), expected, err_msg=path.name)
        assert image_size(path) == (5, 8)


def test_gray_models_read_gray_and_color(tmp_path: Path) -> None:
    gray, rgb = FOUR[..., 0], FOUR[..., :3]
    PIL.Image.fromarray(gray).save(tmp_path / "gray.png")
    PIL.Image.fromarray(np.ascontiguousarray(rgb)).save(tmp_path / "rgb.png")
    np.save(tmp_path / "gray.npy", gray[..., None])
    for source in (tmp_path / "gray.png", tmp_path / "gray.npy", gray, torch.from_numpy(gray)[None]):
        image = read_image(source, Reading(1))
        assert isinstance(image, PIL.Image.Image) and image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), gray)
    expected = np.asarray(PIL.Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))
    for source in (tmp_path / "rgb.png", rgb):
        np.testing.assert_array_equal(read(source, 1)[..., 0], expected)
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "gray.npy"))[..., 1], gray)


@pytest.mark.parametrize(
    ("source", "channels", "reason"),
    [
        (np.zeros((4, 4, 3), np.uint8), 4, "model reads images of 4 channels, given 3"),
        (np.zeros((4, 4, 5), np.uint8), 4, "given 5"),
        (np.zeros((4, 4), np.uint8), 5, "given 1"),
        (np.zeros((4, 8, 8), np.uint8), 4, "channels first"),
        (np.zeros((4, 4, 4), np.uint8), 1, "1 channel, given 4"),
        (np.zeros((4, 4, 5), np.uint8), 3, "in_chans=5"),
        (np.zeros((2, 4, 4, 4), np.uint8), 4, "one image each"),
        (torch.zeros(3, 4, 4), 4, r"must be \(4, H, W\)"),
        (PIL.Image.new("RGB", (4, 4)), 4, "mode RGB"),
        (np.zeros((4, 4, 4), np.int32), 4, "value_range"),
        (np.full((4, 4, 4), np.nan), 4, "NaN"),
        (np.full((4, 4, 4), 200.0), 4, r"0\.\.1, given 200\.\.200"),
    ],
)
def test_wrong_channels_and_types_say_what_to_do(source: Any, channels: int, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        read(source, channels)


def test_files_of_other_channels_are_named(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.ascontiguousarray(FOUR[..., :3])).save(tmp_path / "rgb.png")
    PIL.Image.fromarray(np.ascontiguousarray(FOUR[..., :3])).save(tmp_path / "rgb.tif")
    np.save(tmp_path / "five.npy", np.zeros((4, 4, 5), np.uint8))
    for name in ("rgb.png", "rgb.tif", "five.npy"):
        with pytest.raises(BadImage, match=rf"{name}: the model reads images of 4 channels, given [35]"):
            read(tmp_path / name, 4)


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_range_spreads_the_values_of_a_camera(tmp_path: Path, bits: int, channels: int) -> None:
    top = 2**bits - 1
    values = np.array([[0, top // 2, top], [1, top // 4, 65535]], dtype=np.uint16)
    expected = np.rint(np.minimum(values, top) * (255 / top)).astype(np.uint8)
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "color.tif", values[..., None].repeat(3, 2), photometric="rgb")
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "long.npy", values.astype(np.int64))
    np.save(tmp_path / "float.npy", values.astype(np.float32))
    for source in (*sorted(tmp_path.iterdir()), values):
        found = read(source, channels, (0, top))
        assert found.shape == (2, 3, channels)
        assert np.abs(found[..., 0].astype(int) - expected).max() <= ("color" in str(source))


def test_8_bit_images_do_not_care_for_the_range() -> None:
    rgb = FOUR[..., :3]
    np.testing.assert_array_equal(read(rgb, 3, (0, 4095)), rgb)


def test_a_range_below_zero_and_of_floats() -> None:
    values = np.array([[-20.0, 0.0, 60.0]], dtype=np.float32)[..., None].repeat(4, 2)
    assert read(values, 4, (-20, 60))[0, :, 0].tolist() == [0, 64, 255]


@pytest.mark.parametrize("value_range", [(5, 5), (4095, 0), (0, float("nan")), (0, float("inf"))])
def test_ranges_that_make_no_sense(value_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="value_range must be the values of black and white"):
        Reading(1, value_range)


def test_16_bit_color_png_cannot_take_a_range(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x10\2\0\0\0"
    (tmp_path / "deep.png").write_bytes(header + b"\0" * 20)
    with pytest.raises(BadImage, match="upper 8 bits"):
        read(tmp_path / "deep.png", 3, (0, 4095))


def test_dark_16_bit_images_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_range_module, "_warned", set())
    for name, top in (("bright", 60000), ("twelve", 4095), ("ten", 1023)):
        PIL.Image.fromarray(np.array([[0, top]], dtype=np.uint16)).save(tmp_path / f"{name}.png")
    with caplog.at_level(logging.WARNING, logger="internimage"):
        read(tmp_path / "bright.png", 1)
        read(tmp_path / "twelve.png", 1, (0, 4095))
        assert not caplog.records
        for name in ("twelve", "ten", "twelve"):
            read(tmp_path / f"{name}.png", 3)
    [record] = caplog.records
    assert "twelve.png" in record.getMessage() and "--value-range 0 4095" in record.getMessage()


# --- rasters --------------------------------------------------------------------------------------


def test_a_raster_resizes_and_crops_as_pillow_does_channel_by_channel() -> None:
    raster, rgb = Raster(FOUR), PIL.Image.fromarray(np.ascontiguousarray(FOUR[..., :3]))
    for change in (
        lambda image: image.resize((5, 4), Resampling.BICUBIC),
        lambda image: image.resize((20, 7), Resampling.BILINEAR, box=(1, 1, 5, 4)),
        lambda image: image.crop((-2, 1, 7, 9)),
        lambda image: image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT),
    ):
        np.testing.assert_array_equal(change(raster).pixels[..., :3], np.asarray(change(rgb)))


# --- hostile arrays -------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_arrays_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "objects.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "objects.npz", image=np.array([[Bomb()]], dtype=object))
    with zipfile.ZipFile(tmp_path / "pickle.npz", "w") as archive:
        archive.writestr("image.npy", pickle.dumps(Bomb()))
    for name in ("objects.npy", "pickle.npy", "objects.npz", "pickle.npz"):
        with pytest.raises(BadImage, match=name):
            read(tmp_path / name, 3)
    assert not (tmp_path / "executed").exists()


def test_announced_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((64, 64, 4), np.uint8))
    data = (tmp_path / "whole.npy").read_bytes()
    cases = {
        "short.npy": (data[:500], "not complete"),
        "empty.npy": (b"", "0 bytes"),
        "header.npy": (data[:40], "damaged"),
        "text.npy": (b"this is no array", "no NumPy array"),
        "flat.npy": (data.replace(b"(64, 64, 4)", b"(16384,)   "), r"\(H, W\) or \(H, W, C\)"),
        "none.npy": (data.replace(b"(64, 64, 4)", b"(0, 64, 4) "), "no pixels"),
        "huge.npy": (data.replace(b"(64, 64, 4), }", b"(99999, 99999)}"), "limit"),
        "long.npy": (data.replace(b"(64, 64, 4)", b"(9999, 999)"), "not complete"),
        "zip.npz": (b"PK\3\4" + data, "no complete .npz"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImage, match=reason) as caught:
            read(tmp_path / name, 4)
        assert name in str(caught.value)
    np.savez(tmp_path / "several.npz", a=FOUR, b=FOUR)
    with pytest.raises(BadImage, match="named 'image', given 2"):
        read(tmp_path / "several.npz", 4)


def test_damaged_bands(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 256, (32, 32, 5), dtype=np.uint8), planarconfig="contig", compression="zlib")
    data = path.read_bytes()
    for stop in (10, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:stop])
        with pytest.raises(BadImage, match=r"a\.tif"):
            read(path, 5)


# --- data sets ------------------------------------------------------------------------------------


def test_data_sets_are_read_as_a_model_wants_them(tmp_path: Path) -> None:
    (tmp_path / "pear").mkdir()
    np.save(tmp_path / "pear" / "a.npy", FOUR)
    PIL.Image.fromarray(FOUR).save(tmp_path / "pear" / "b.png")
    np.save(tmp_path / "pear" / "b.npy", np.zeros((9, 9, 3), np.uint8))  # a cached copy, which counts for nothing
    folder = ImageFolder(tmp_path)
    assert [path.name for path, _ in folder.files] == ["a.npy", "b.png"]
    for opened in (read_as(folder, Reading(4)), read_as(Selection(folder, [1, 0]), Reading(4))):
        for i in range(2):
            np.testing.assert_array_equal(pixels_of(opened[i].image), FOUR)
    assert folder.reading == Reading() and pixels_of(folder[1].image).shape == (6, 9, 3)
