"""What predictions look like: saved under names of their own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from internimage.data.images.video import VideoReader, VideoWriter
    from internimage.flow import ImageInput, Presented

# Good enough to read small text, a tenth of the bytes of a PNG.
JPEG_OPTIONS = {"quality": 92, "subsampling": 0}
MAX_JPEG_SIDE = 60_000  # of the 65,535 pixels that the format can count; a panel may come below


class Drawing:
    """Saves what predictions look like under names of their own, never those of a source.

    Args:
        out: folder to write to, or None to save nothing.
        sources: the files that must not be overwritten.
        draws: whether predictions are drawn on their images.
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
            if (resolved := target.resolve()) not in self._taken:
                self._taken.add(resolved)
                self._numbers[stem, suffix] = number + 1
                return target
        raise AssertionError("there is no end to the numbers")

    def save(self, stem: str, presented: Presented, image: ImageInput) -> dict[str, str]:
        """Save the label map and the drawing of one image; return their paths."""
        written: dict[str, str] = {}
        if self.out is None:
            return written
        if presented.label_map is not None:
            written["label_map"] = self._save(presented.label_map(), self.free(stem, "_labels.png"), "label maps")
        if self.draws:
            drawn = self._drawn(presented.result, image)
            written["drawn"] = self._save(drawn, self.free(stem, ".jpg"), "drawn images", **JPEG_OPTIONS)
        return written

    def _save(self, image: Image, target: Path, kind: str, **options: Any) -> str:
        from internimage.files import replacing

        with replacing(target) as temporary:
            image.save(temporary, "PNG" if target.suffix == ".png" else "JPEG", **options)
        self.kinds.add(kind)
        return str(target)

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
        """Draw a prediction on a frame; all frames of a video get one size."""
        return self._drawn(result, image, has_legend=False)

    def _drawn(self, result: Any, image: ImageInput, *, has_legend: bool = True) -> Image:
        from internimage.visualize import draw

        height, width = result.original_hw
        longest = self.longest_side or (MAX_JPEG_SIDE if max(height, width) > MAX_JPEG_SIDE else None)
        return draw(result, image, score_threshold=self.score_threshold, has_legend=has_legend, longest_side=longest)
