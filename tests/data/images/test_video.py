"""Frames of videos in order; damaged and hostile files."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data.images import video
from internimage.data.images.video import BadVideo, VideoReader, VideoWriter, camera_number, is_video
from internimage.errors import MissingExtra

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, each brighter than the one before."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for i in range(10):
            writer.write(PIL.Image.new("RGB", (48, 32), (20 * i, 20 * i, 20 * i)), i / 10)
    return path


def test_frames_come_in_order(clip: Path) -> None:
    with VideoReader(clip) as reader:
        frames = list(reader)
        assert reader.num_frames == 10 and reader.rate == 10
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 10 for i in range(10)], abs=1e-3)
    for i, frame in enumerate(frames):
        assert frame.image.mode == "RGB" and frame.image.size == (48, 32)
        assert np.abs(np.asarray(frame.image, dtype=int) - 20 * i).max() <= 4


def test_every_third_frame_and_a_limit(clip: Path) -> None:
    with VideoReader(clip, every=3) as reader:
        assert reader.num_frames == 4 and [frame.index for frame in reader] == [0, 3, 6, 9]
    with VideoReader(clip, every=2, max_frames=3) as reader:
        assert reader.num_frames == 3 and [frame.index for frame in reader] == [0, 2, 4]
        assert reader.rate == 5
    for values in ({"every": 0}, {"max_frames": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            VideoReader(clip, **values)


@pytest.mark.parametrize("encoders", [("libx264", "mpeg4"), ("mpeg4",)])
def test_frames_of_other_and_odd_sizes(
    tmp_path: Path, encoders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "ENCODERS", encoders)
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for size, time_s in (((31, 17), 0.0), ((62, 34), 0.0), ((15, 8), 0.04)):  # a time that stands still, too
            writer.write(PIL.Image.new("RGB", size, (200, 30, 30)), time_s)
    with VideoReader(path) as reader:
        images = [frame.image for frame in reader]
    assert [image.size for image in images] == [(32, 18)] * 3
    assert np.asarray(images[1])[8, 15].tolist() == pytest.approx([200, 30, 30], abs=12)


def test_damaged_files_are_named(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:400])
    for name, message in (("gone", "no such file"), ("empty", "empty"), ("text", "no video"), ("cut", "no video")):
        with pytest.raises(BadVideo, match=rf"{name}\.mp4.*{message}"):
            VideoReader(tmp_path / f"{name}.mp4")
    with pytest.raises(BadVideo, match="more pixels"):
        VideoReader(clip, max_pixels=100)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile '{}'\n"])
def test_playlists_that_lead_to_other_files_are_refused(clip: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "list.mp4").write_text(text.format(clip), encoding="utf-8")
    with pytest.raises(BadVideo, match="no video of a known format"):
        VideoReader(tmp_path / "list.mp4")


def test_cameras_and_names() -> None:
    assert camera_number("camera:12") == 12 and camera_number("camera:x") is None
    assert is_video("a/b.MP4") and is_video("camera:0") and not is_video("cat.gif")
    with pytest.raises(BadVideo, match="camera:987: there is no camera 987"):
        VideoReader("camera:987")


def test_sideways_frames_are_turned_upright() -> None:
    image = PIL.Image.new("RGB", (3, 2))
    image.putpixel((2, 0), (255, 0, 0))
    assert video._upright(image, 90).getpixel((0, 0)) == (255, 0, 0)  # counter-clockwise
    assert video._upright(image, -90).getpixel((1, 2)) == (255, 0, 0)
    assert video._upright(image, 0) is image


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"internimage\[video\]"):
        VideoReader(clip)
