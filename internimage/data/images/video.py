"""Videos from files and cameras, frame by frame in order, and annotated videos out."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import PIL.Image
from PIL.Image import Image, Resampling, Transpose

from internimage.data.images.read import MAX_PIXELS
from internimage.errors import MissingExtra

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
# Containers of moving images only: others (playlists, lists of files) lead to other files or to the network.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,m4v"
CAMERA = re.compile(r"camera:(\d{1,3})")
DEFAULT_RATE = Fraction(25)
# Fine enough for any rate; the usual clock of video streams.
CLOCK = Fraction(1, 90_000)
QUARTER_TURNS = {90: Transpose.ROTATE_90, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_270}
# In order of preference; the second is part of every build.
ENCODERS = ("libx264", "mpeg4")


class BadVideo(ValueError):
    """A video cannot be read; the message names it, says why, and what to do."""


@dataclass(frozen=True)
class Frame:
    """One image of a video.

    Args:
        index: counted from 0.
        time_s: its time in seconds from the start.
        image: upright RGB image.
    """

    index: int
    time_s: float
    image: Image


def is_video(source: str | PathLike[str]) -> bool:
    """Whether a name is that of a video file or of a camera ("camera:0")."""
    return camera_number(source) is not None or Path(source).suffix.lower() in VIDEO_SUFFIXES


def camera_number(source: str | PathLike[str]) -> int | None:
    """Return the number of a camera, None for other names.

    Example:
        >>> camera_number("camera:1"), camera_number("camera.mp4")
        (1, None)
    """
    match = CAMERA.fullmatch(str(source))
    return None if match is None else int(match[1])


class VideoReader(AbstractContextManager["VideoReader"]):
    """A video file or a camera; iterating gives its frames in order.

    Args:
        source: path of a file, or "camera:0" for the first camera.
        every: take each n-th frame only, at least 1.
        max_frames: stop after this many frames, None for all of them (a camera has no end).
        max_pixels: largest accepted frame.

    Raises:
        MissingExtra: the package `av` is not installed.
        BadVideo: a ValueError; there is no such file or camera, it is no video, or its frames are too large.
        ValueError: `every` or `max_frames` is below 1.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        every: int = 1,
        max_frames: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if every < 1 or (max_frames is not None and max_frames < 1):
            raise ValueError(f"every and max_frames must be at least 1, given {every} and {max_frames}")
        self.name, self.every, self.max_frames, self.max_pixels = str(source), every, max_frames, max_pixels
        self._av = _library()
        number = camera_number(source)
        self._container = self._open_file(Path(source)) if number is None else self._open_camera(number)
        if not self._container.streams.video:
            self.close()
            raise BadVideo(f"{self.name}: there are no images in it, only sound or data")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._check_size(self._stream.codec_context.width or 0, self._stream.codec_context.height or 0)

    @property
    def rate(self) -> Fraction:
        """Frames in a second, as they are given."""
        return Fraction(self._stream.average_rate or self._stream.base_rate or DEFAULT_RATE) / self.every

    @property
    def num_frames(self) -> int | None:
        """Frames that will be given, None where the file does not say it."""
        known = self._stream.frames
        if not known:
            return self.max_frames if camera_number(self.name) is not None else None
        given = -(-known // self.every)
        return given if self.max_frames is None else min(given, self.max_frames)

    def __iter__(self) -> Iterator[Frame]:
        frames = self._container.decode(self._stream)
        last = None if self.max_frames is None else self.every * (self.max_frames - 1)
        for index in itertools.count():
            try:
                frame = next(frames, None)
            except self._av.FFmpegError as error:
                raise BadVideo(f"{self.name}, frame {index}: the video is damaged there ({error})") from error
            if frame is None:
                return
            if index % self.every == 0:
                self._check_size(frame.width, frame.height)
                time_s = float(frame.time) if frame.time is not None else index / float(self.rate * self.every)
                yield Frame(index, max(0.0, time_s), _upright(frame.to_image(), frame.rotation))
            if index == last:
                return

    def close(self) -> None:
        """Close the file or release the camera."""
        self._container.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open_file(self, path: Path) -> Any:
        if not path.is_file():
            raise BadVideo(f"{self.name}: there is no such file; check the path")
        if path.stat().st_size == 0:
            raise BadVideo(f"{self.name}: the file is empty (0 bytes); copy or download it again")
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        reason = "this is no video of a known format, or its header is damaged"
        return self._open(str(path.absolute()), reason, container_options=options)

    def _open_camera(self, number: int) -> Any:
        name = f"/dev/video{number}" if sys.platform == "linux" else str(number)
        kind = {"linux": "v4l2", "darwin": "avfoundation"}.get(sys.platform, "vfwcap")
        return self._open(name, f"there is no camera {number} here, or it is in use", format=kind)

    def _open(self, name: str, reason: str, **settings: Any) -> Any:
        try:
            return self._av.open(name, **settings)
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise BadVideo(f"{self.name}: {reason} ({error})") from error

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            self.close()
            raise BadVideo(
                f"{self.name}: its frames have more pixels (height {height}, width {width}) than the limit of "
                f"{self.max_pixels}; make it smaller"
            )


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Writes frames into an MP4 file; the first frame sets the size.

    Args:
        path: file to write.
        rate: frames in a second.

    Raises:
        MissingExtra: the package `av` is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | PathLike[str], rate: Fraction) -> None:
        self._av = _library()
        self.path, self.rate = Path(path), rate
        self._container = self._av.open(str(path), "w", format="mp4")
        self._stream: Any = None
        self._clock, self._last = CLOCK, -1

    def write(self, image: Image, time_s: float) -> None:
        """Add a frame; one of another size than the first is scaled to fit.

        Args:
            image: RGB image.
            time_s: its time in seconds from the start.
        """
        if self._stream is None:
            self._stream = self._start(image)
        frame = self._av.VideoFrame.from_image(self._fitted(image))
        self._last = max(self._last + 1, round(time_s / self._clock))  # times must grow
        frame.pts, frame.time_base = self._last, self._clock
        self._container.mux(self._stream.encode(frame))

    def _start(self, image: Image) -> Any:
        """Choose the encoder; it takes even sides only."""
        known = self._av.codec.codecs_available
        encoder = next(name for name in ENCODERS if name in known)
        stream = self._container.add_stream(encoder, rate=self.rate)
        stream.width, stream.height = (side + side % 2 for side in image.size)
        stream.pix_fmt = "yuv420p"
        if encoder != "libx264":  # its clock is coarse, and it aims at a low quality
            self._clock, stream.bit_rate = 1 / self.rate, 8_000_000
        stream.codec_context.time_base = self._clock
        return stream

    def _fitted(self, image: Image) -> Image:
        size = (self._stream.width, self._stream.height)
        if image.size == size:
            return image
        canvas = PIL.Image.new("RGB", size)
        scale = min(size[0] / image.width, size[1] / image.height)
        if scale < 1 or scale > 1.1:  # not merely the pixel that makes a side even
            target = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(target, Resampling.BILINEAR)
        canvas.paste(image, (0, 0))
        return canvas

    def close(self) -> None:
        """Write what is pending and close the file."""
        with contextlib.closing(self._container):
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))

    def __exit__(self, *error: object) -> None:
        self.close()


def _library() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtra("av", "video", "reading and writing videos") from error


def _upright(image: Image, degrees: float) -> Image:
    """Turn a frame of a phone that was held sideways; `degrees` counter-clockwise."""
    turn = QUARTER_TURNS.get(round(degrees) % 360)
    return image if turn is None else image.transpose(turn)
