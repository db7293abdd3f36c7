"""Predictions as rows: of images in batches, of videos frame by frame; and as a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from internimage.cli.terminal import note, print_table

if TYPE_CHECKING:
    from internimage.cli.predicting.drawings import Drawing
    from internimage.data.images.video import BadVideo, Frame, VideoWriter
    from internimage.flow import AnyModel, AnyTask, ImageInput, PredictionOptions, Presented

Row = dict[str, Any]
Progress = Callable[[int, int], None]


class Prediction(NamedTuple):
    """One image or frame: what is written of it, and how it is shown; None where it could not be read."""

    row: Row
    presented: Presented | None


@dataclass
class Predicting:
    """Turns sources into predictions.

    Args:
        model: the model.
        task: its task.
        options: what the user asks for.
        drawing: saves and draws.
        every: take each n-th frame of a video.
        max_frames: frames of a video or a camera, None for all.
        results: entries of a COCO results file, where the options ask for them.
    """

    model: AnyModel
    task: AnyTask
    options: PredictionOptions
    drawing: Drawing
    every: int
    max_frames: int | None
    results: list[Row] = field(default_factory=list)

    def run(self, sources: Sequence[Path], *, batch_size: int, progress: Progress) -> Iterator[Prediction]:
        """Predict for images, batch by batch, and for the frames of videos, in the order of the sources."""
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

    def _images(self, paths: Sequence[Path], numbers: Iterator[int]) -> Iterator[Prediction]:
        """Predict for one batch of files; a row for each, with "error" for those that cannot be read."""
        from internimage.data.images.image_file import BadImage, shown_name
        from internimage.data.images.read import read_image

        preprocess = self.model.config.preprocess
        network_hw = None if self.drawing.draws else preprocess.network_hw  # drawn are all pixels
        errors: dict[Path, str] = {}
        images: dict[Path, ImageInput] = {}
        for path in paths:
            try:
                images[path] = read_image(path, preprocess.reading, network_hw=network_hw)
            except BadImage as error:
                errors[path] = str(error)
                note(f"error: {error}")
        results = dict(zip(images, self._predict(list(images.values())), strict=True))
        for path in paths:
            number = next(numbers)
            if path in errors:
                yield Prediction({"image": shown_name(path), "error": errors[path]}, None)
            else:
                row, presented = self._present(results[path], number)
                files = self.drawing.save(path.stem, presented, images[path])
                yield Prediction({"image": str(path), **row, **files}, presented)

    def _video(self, source: Path, batch_size: int, numbers: Iterator[int]) -> Iterator[Prediction]:
        """Predict for the frames of a video in order; a camera is watched frame by frame until it is interrupted.

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
                yield Prediction({"image": str(source), "error": str(error)}, None)
            except KeyboardInterrupt:
                if not is_camera:
                    raise
                note(f"{source}: stopped")

    def _frames(
        self, source: Path, frames: Sequence[Frame], target: tuple[Path, VideoWriter] | None, numbers: Iterator[int]
    ) -> Iterator[Prediction]:
        results = self._predict([frame.image for frame in frames])
        for frame, result in zip(frames, results, strict=True):
            own, presented = self._present(result, next(numbers))
            row = {"image": str(source), "frame": frame.index, "time_s": round(frame.time_s, 4), **own}
            if target is not None:
                target[1].write(self.drawing.frame(presented.result, frame.image), frame.time_s)
                row["drawn"] = str(target[0])
            yield Prediction(row, presented)

    def _predict(self, images: Sequence[ImageInput]) -> list[Any]:
        return self.model.predict(images, batch_size=max(1, len(images)))

    def _present(self, result: Any, image_id: int) -> tuple[Row, Presented]:
        """Return what a result says; note its entries of a results file."""
        presented = self.task.present(result, self.options, image_id)
        self.results += presented.entries
        height, width = result.original_hw
        number = {"image_id": image_id} if self.options.coco else {}
        return {**number, "height": height, "width": width, **presented.row}, presented


def _next_frames(frames: Iterator[Frame], count: int) -> list[Frame | BadVideo]:
    """Take some frames; where the video is damaged, the error comes behind those before it."""
    from internimage.data.images.video import BadVideo

    part: list[Frame | BadVideo] = []
    try:
        part += itertools.islice(frames, count)
    except BadVideo as error:
        part.append(error)
    return part


def print_predictions(
    predictions: Sequence[Prediction], total: int, *, headings: tuple[str, str], shown_score: float
) -> None:
    """Show predictions as a table: the best of each image, and some more; of objects those from a score on."""
    value, more = headings
    cells = [[_source(row), *_cells(presented)] for row, presented in predictions]
    print_table(["picture", "answer", value, more], cells, right=value)
    num_hidden = sum(presented.num_hidden for _, presented in predictions if presented is not None)
    if num_hidden:
        what = "1 object" if num_hidden == 1 else f"{num_hidden} objects"
        note(f"not shown: {what} with a score below {shown_score:g}; --json and --out give all of them")
    if total > len(predictions):
        note(f"the first {len(predictions)} of {total} answers are shown; --out or --json gives them all")


def _source(row: Row) -> str:
    return f"{row['image']} {row['time_s']:.2f} s" if "time_s" in row else row["image"]


def _cells(presented: Presented | None) -> list[Text]:
    """Return the words for one image."""
    if presented is None:
        return [Text("cannot be read", "red"), Text(), Text()]
    prediction = Text(presented.prediction, "bold") if presented.prediction else Text("nothing", "dim")
    return [prediction, Text(presented.value), Text(presented.more, "dim")]
