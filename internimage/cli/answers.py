"""Rows of answers: of images in batches, of videos frame by frame; saved, drawn, and shown as a table."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from internimage.cli.terminal import note, print_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from internimage.data.images.video import BadVideo, Frame, VideoReader, VideoWriter
    from internimage.flow import ImageInput, TaskModel

# Good enough to read small text, a tenth of the bytes of a PNG.
JPEG_OPTIONS = {"quality": 92, "subsampling": 0}
MAX_JPEG_SIDE = 60_000  # of the 65,535 pixels that the format can count; a panel may come below
NUM_CLASSES_SHOWN = 4

Row = dict[str, Any]
Progress = Callable[[int, int], None]


class Drawing:
    """Saves what answers look like under names of their own, never those of a source.

    Args:
        out: folder to write to, or None to save nothing.
        sources: the files that must not be overwritten.
        draws: whether answers are drawn on their images.
        score_threshold: objects below are not drawn, 0..1.
        longest_side: longest side of drawn images in pixels, None for the image's own.
    """

    def __init__(
        self,
        out: Path | None,
        sources: Sequence[Path],
        *,
        draws: bool,
        score_threshold: float,
        longest_side: int | None = None,
    ) -> None:
        self.out, self.draws, self.score_threshold = out, draws and out is not None, score_threshold
        self.longest_side = longest_side
        self.kinds: set[str] = set()
        self._taken = {path.resolve() for path in sources}
        self._numbers: dict[tuple[str, str], int] = {}  # the next one to try, for sources of one name

    def free(self, stem: str, suffix: str) -> Path:
        """Return a path in the folder that nothing else has."""
        assert self.out is not None
        for number in itertools.count(self._numbers.get((stem, suffix), 1)):
            target = self.out / f"{stem}{'' if number == 1 else f'_{number}'}{suffix}"
            if (place := target.resolve()) not in self._taken:
                self._taken.add(place)
                self._numbers[stem, suffix] = number + 1
                return target
        raise AssertionError("there is no end to the numbers")

    def save(self, stem: str, result: Any, image: ImageInput) -> dict[str, str]:
        """Save the label map and the drawing of one image; return their paths."""
        from internimage.files import replacing
        from internimage.types import Segmentation

        written: dict[str, str] = {}
        if self.out is None:
            return written
        if isinstance(result, Segmentation):
            target = self.free(stem, "_labels.png")
            with replacing(target) as temporary:
                result.to_image().save(temporary, "PNG")
            written["label_map"] = str(target)
            self.kinds.add("label maps")
        if self.draws:
            target = self.free(stem, ".jpg")
            with replacing(target) as temporary:
                self._drawn(result, image).save(temporary, "JPEG", **JPEG_OPTIONS)
            written["drawn"] = str(target)
            self.kinds.add("drawn images")
        return written

    def video(self, stem: str, reader: VideoReader, stack: ExitStack) -> tuple[Path, VideoWriter] | None:
        """Start an annotated video, complete when the stack closes; None where nothing is drawn."""
        from internimage.data.images.video import VideoWriter
        from internimage.files import replacing

        if not self.draws:
            return None
        target = self.free(stem, ".mp4")
        temporary = stack.enter_context(replacing(target))
        self.kinds.add("annotated videos")
        return target, stack.enter_context(VideoWriter(temporary, reader.rate))

    def frame(self, result: Any, image: Image) -> Image:
        """Draw an answer on a frame; all frames of a video get one size."""
        return self._drawn(result, image, has_legend=False)

    def _drawn(self, result: Any, image: ImageInput, *, has_legend: bool = True) -> Image:
        from internimage.visualize import draw

        height, width = result.original_hw
        longest = self.longest_side or (MAX_JPEG_SIDE if max(height, width) > MAX_JPEG_SIDE else None)
        return draw(result, image, score_threshold=self.score_threshold, has_legend=has_legend, longest_side=longest)


@dataclass
class Answering:
    """Turns sources into rows.

    Args:
        predictor: the model.
        top_k: classes in the answer of a classifier or a segmentor.
        score_threshold: objects below are left out, 0..1.
        classes: objects of other classes are left out; None keeps all.
        masks: whether rows hold the masks of objects.
        drawing: saves and draws.
        every: take each n-th frame of a video.
        max_frames: frames of a video or a camera, None for all.
        keeps_results: whether entries of a COCO results file are collected in `results`.
    """

    predictor: TaskModel[Any]
    top_k: int
    score_threshold: float
    classes: tuple[str, ...] | None
    masks: bool
    drawing: Drawing
    every: int
    max_frames: int | None
    keeps_results: bool
    results: list[Row] = field(default_factory=list)

    def rows(self, sources: Sequence[Path], *, batch_size: int, progress: Progress) -> Iterator[Row]:
        """Give the rows of images, batch by batch, and of the frames of videos, in the order of the sources."""
        from internimage.data.images.video import is_video

        numbers = self._image_ids(sources)
        done = 0
        for is_moving, group in itertools.groupby(sources, key=is_video):
            paths = list(group)
            step = 1 if is_moving else batch_size
            for start in range(0, len(paths), step):
                part = paths[start : start + step]
                yield from self._video(part[0], batch_size, numbers) if is_moving else self._images(part, numbers)
                done += len(part)
                progress(done, len(sources))

    def _image_ids(self, sources: Sequence[Path]) -> Iterator[int]:
        """Number images by the numbers that their files are named with, else from 1 on."""
        from internimage.data.images.video import is_video

        stems = [path.stem for path in sources]
        is_numbered = all(stem.isdecimal() for stem in stems) and len(set(stems)) == len(stems)
        if is_numbered and not any(map(is_video, sources)):
            return iter([int(stem) for stem in stems])
        return itertools.count(1)

    def _images(self, paths: Sequence[Path], numbers: Iterator[int]) -> Iterator[Row]:
        """Answer for one batch of files; a row for each, with "error" for those that cannot be read."""
        from internimage.data.images.read import BadImage, read_image, shown_name

        config: Any = self.predictor.config
        network_hw = None if self.drawing.draws else config.preprocess.network_hw  # drawn are all pixels
        errors: dict[Path, str] = {}
        images: dict[Path, ImageInput] = {}
        for path in paths:
            try:
                images[path] = read_image(path, config.preprocess.reading, network_hw=network_hw)
            except BadImage as error:
                errors[path] = str(error)
                note(f"error: {error}")
        results = dict(zip(images, self._answer(list(images.values())), strict=True))
        for path in paths:
            number = next(numbers)
            if path in errors:
                yield {"image": shown_name(path), "error": errors[path]}
            else:
                row = {"image": str(path), **self._row(results[path], number)}
                yield {**row, **self.drawing.save(path.stem, results[path], images[path])}

    def _video(self, source: Path, batch_size: int, numbers: Iterator[int]) -> Iterator[Row]:
        """Answer for the frames of a video in order; a camera is watched frame by frame until it is interrupted.

        What was drawn until then is kept, also where a file is damaged in the middle.
        """
        from internimage.data.images.video import BadVideo, VideoReader, camera_number

        is_camera = camera_number(source) is not None
        with ExitStack() as stack:
            try:
                reader = stack.enter_context(VideoReader(source, every=self.every, max_frames=self.max_frames))
                target = self.drawing.video(source.stem.replace(":", "_"), reader, stack)
                frames = iter(reader)
                while part := _next_frames(frames, 1 if is_camera else batch_size):
                    good = [frame for frame in part if not isinstance(frame, BadVideo)]
                    yield from self._frames(source, good, target, numbers)
                    if len(good) < len(part):
                        raise next(frame for frame in part if isinstance(frame, BadVideo))
            except BadVideo as error:
                note(f"error: {error}")
                yield {"image": str(source), "error": str(error)}
            except KeyboardInterrupt:
                if not is_camera:
                    raise
                note(f"{source}: stopped")

    def _frames(
        self, source: Path, frames: Sequence[Frame], target: tuple[Path, VideoWriter] | None, numbers: Iterator[int]
    ) -> Iterator[Row]:
        results = self._answer([frame.image for frame in frames])
        for frame, result in zip(frames, results, strict=True):
            row = {"image": str(source), "frame": frame.index, "time_s": round(frame.time_s, 4)}
            row |= self._row(result, next(numbers))
            if target is not None:
                target[1].write(self.drawing.frame(result, frame.image), frame.time_s)
                row["drawn"] = str(target[0])
            yield row

    def _answer(self, images: Sequence[ImageInput]) -> list[Any]:
        from internimage.types import Detections

        results = self.predictor.predict(images, batch_size=max(1, len(images)))
        return [
            result.filter(score_threshold=self.score_threshold, classes=self.classes)
            if isinstance(result, Detections)
            else result
            for result in results
        ]

    def _row(self, result: Any, number: int) -> Row:
        """Return what a result says; note the entries of a results file."""
        from internimage.types import Detections

        height, width = result.original_hw
        size = {"height": height, "width": width}
        if not isinstance(result, Detections):
            return {**size, **result.to_dict(self.top_k)}
        row = {**size, "objects": result.to_dict(masks=self.masks)["objects"]}
        if not self.keeps_results:
            return row
        from internimage.evaluation.object_classes import category_ids

        ids = None if result.class_names is None else category_ids(result.class_names)
        self.results += result.to_coco(number, category_ids=ids)
        return {"image_id": number, **row}


def _next_frames(frames: Iterator[Frame], number: int) -> list[Frame | BadVideo]:
    """Take some frames; where the video is damaged, the error comes behind those before it."""
    from internimage.data.images.video import BadVideo

    part: list[Frame | BadVideo] = []
    try:
        part += itertools.islice(frames, number)
    except BadVideo as error:
        part.append(error)
    return part


def print_answers(rows: Sequence[Row], total: int, *, lowest_score: float) -> None:
    """Show answers as a table: the best one, and some more; of objects those from a score on."""
    shown = [_without_doubtful(row, lowest_score) for row in rows]
    cells = [[_place(row), *_cells(row)] for row in shown]
    has_objects = any("objects" in row for row in rows)
    value = "objects" if has_objects else "area" if any("classes" in row for row in rows) else "probability"
    print_table(["picture", "answer", value, "best" if has_objects else "next"], cells, right=value)
    hidden = sum(len(row.get("objects", ())) for row in rows) - sum(len(row.get("objects", ())) for row in shown)
    if hidden:
        what = "1 object" if hidden == 1 else f"{hidden} objects"
        note(f"not shown: {what} with a score below {lowest_score:g}; --json and --out give all of them")
    if total > len(rows):
        note(f"the first {len(rows)} of {total} answers are shown; --out or --json gives them all")


def _without_doubtful(row: Row, lowest_score: float) -> Row:
    """Leave objects below a score out of a row."""
    if "objects" not in row:
        return row
    return {**row, "objects": [entry for entry in row["objects"] if entry["score"] >= lowest_score]}


def _place(row: Row) -> str:
    return f"{row['image']} {row['time_s']:.2f} s" if "time_s" in row else row["image"]


def _cells(row: Row) -> list[Any]:
    """Answer, figure and the rest of one row."""
    if "error" in row:
        return [Text("cannot be read", "red"), "", ""]
    if "objects" in row:
        counts = Counter(entry["name"] for entry in row["objects"]).most_common()
        names = ", ".join(f"{count} {name}" for name, count in counts[:NUM_CLASSES_SHOWN])
        rest = f" and {len(counts) - NUM_CLASSES_SHOWN} more classes" if len(counts) > NUM_CLASSES_SHOWN else ""
        best = "".join(f"{entry['name']} {entry['score']:.1%}" for entry in row["objects"][:1])
        return [Text(names + rest, "bold") if names else Text("nothing", "dim"), len(row["objects"]), Text(best, "dim")]
    value = "score" if "top" in row else "share"
    first, *others = (row["top"] if "top" in row else row["classes"])[:3]
    rest = ", ".join(f"{other['name']} {other[value]:.1%}" for other in others)
    return [Text(first["name"], "bold"), f"{first[value]:.1%}", Text(rest, "dim")]
