"""Turned images, and the fraction of them whose turn is found."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from internimage.data import ImageDataset, Sample
from internimage.data.images.read import read_rgb
from internimage.data.listing import list_images
from tests.rotation.model import TURNS, Rotation


@dataclass(frozen=True)
class TurnedImages:
    """Every image of a folder, each time a quarter turn further."""

    paths: tuple[Path, ...]
    class_names: tuple[str, ...] = TURNS

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample[int]:
        turn = index % len(TURNS)
        return Sample(read_rgb(self.paths[index]).rotate(90 * turn, expand=True), turn, self.paths[index].name)


def open_turned(root: str | PathLike[str], split: str = "val") -> TurnedImages:
    return TurnedImages(tuple(list_images(Path(root))))


@dataclass(frozen=True)
class RotationReport:
    """The metrics of an evaluation."""

    quoted = ()
    num_images: int
    accuracy: float
    published: float | None = None
    skipped: tuple[tuple[int, str], ...] = ()

    def fields(self, dataset: str) -> dict[str, str | None]:
        published = None if self.published is None else f"{self.published:.2%} on {dataset}"
        return {"turns found": f"{self.accuracy:.2%}", "published": published}

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        return []

    def per_class(self) -> list[dict[str, float]]:
        return []

    def to_dict(self) -> dict[str, float]:
        return {"num_images": self.num_images, "accuracy": self.accuracy}


def evaluate_rotation(
    model: Rotation,
    data: ImageDataset[int] | str | PathLike[str],
    *,
    split: str = "val",
    batch_size: int = 8,
    published: str | None = None,
    **_: object,  # workers, folder and what else an evaluation of many images takes
) -> RotationReport:
    dataset = open_turned(data, split) if isinstance(data, str | PathLike) else data
    samples = [dataset[i] for i in range(len(dataset))]
    found = model.predict([sample.image for sample in samples], batch_size=batch_size)
    num_right = sum(turn.name == TURNS[sample.target] for turn, sample in zip(found, samples, strict=True))
    return RotationReport(len(samples), num_right / len(samples), None if published is None else 0.5)
