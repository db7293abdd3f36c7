"""What travels between the stations: pictures, maps and results.

Shape legend: N images, H W map size, C channels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import PIL.Image
import torch
from torch import Tensor

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Images:
    """A normalised, padded batch and what is needed to lead results back to the original pictures.

    Args:
        pixels: (N, 3, H, W) float, normalised RGB, padded at the right and the bottom.
        valid_hw: (N, 2) int64, height and width in pixels before padding.
        original_hw: (height, width) of each picture as it was read, in pixels.
        metadata: (N, M) float side information that some classifiers take, or None.
    """

    pixels: Tensor
    valid_hw: Tensor
    original_hw: tuple[tuple[int, int], ...]
    metadata: Tensor | None = None

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Images:
        """Return the batch on `device`; `dtype` converts the floating tensors only."""
        metadata = None if self.metadata is None else self.metadata.to(device, dtype)
        return Images(self.pixels.to(device, dtype), self.valid_hw.to(device), self.original_hw, metadata)


class Features(NamedTuple):
    """The maps of a backbone, fine to coarse: `maps[i]` is (N, C_i, H_i, W_i), channels-last in memory."""

    maps: tuple[Tensor, ...]


@dataclass(frozen=True)
class Classification:
    """The answer of a classifier for one picture.

    Args:
        scores: (K,) float32 probabilities on the CPU, summing to 1.
        class_names: K names, or None when the checkpoint has none (then the index is the name).
        original_hw: (height, width) of the picture in pixels.
    """

    scores: Tensor
    class_names: tuple[str, ...] | None = None
    original_hw: tuple[int, int] = (0, 0)

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        """Probability of the most probable class, 0..1."""
        return float(self.scores.max())

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.class_name(self.label)

    def class_name(self, index: int) -> str:
        """Name of class `index`; the number itself where the checkpoint has no names."""
        return str(index) if self.class_names is None else self.class_names[index]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` most probable classes as (name, probability), best first; `k` is cut to K.

        Raises:
            ValueError: `k` is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, given {k}")
        scores, indices = self.scores.topk(min(k, self.scores.numel()))
        return [(self.class_name(int(i)), float(s)) for s, i in zip(scores, indices, strict=True)]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Return a JSON-ready summary with the `k` best classes."""
        return {
            "label": self.label,
            "name": self.name,
            "score": round(self.score, 6),
            "top": [{"name": name, "score": round(score, 6)} for name, score in self.top(k)],
        }


@dataclass(frozen=True)
class Segmentation:
    """The answer of a semantic segmentor for one picture.

    Args:
        label_map: (H, W) class index of every pixel of the original picture, on the CPU; uint8, int16 beyond 256
            classes.
        num_classes: K.
        class_names: K names, or None when the checkpoint has none (then the index is the name).
        palette: K colors (red, green, blue) 0..255, or None.
        probabilities: (K, H, W) float32 on the CPU, summing to 1 over the classes; None unless asked for.
    """

    label_map: Tensor
    num_classes: int
    class_names: tuple[str, ...] | None = None
    palette: Palette | None = None
    probabilities: Tensor | None = None

    @property
    def original_hw(self) -> tuple[int, int]:
        """(height, width) of the picture in pixels."""
        return (self.label_map.shape[0], self.label_map.shape[1])

    @property
    def pixel_counts(self) -> Tensor:
        """(K,) int64 number of pixels of each class."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64)
        for rows in self.label_map.split(1024):  # by strips: counting needs wide integers
            counts += torch.bincount(rows.flatten().long(), minlength=self.num_classes)
        return counts

    def class_name(self, index: int) -> str:
        """Name of class `index`; the number itself where the checkpoint has no names."""
        return str(index) if self.class_names is None else self.class_names[index]

    def areas(self) -> list[tuple[str, float]]:
        """Return the classes in the picture as (name, share of its pixels 0..1), largest first."""
        return [(self.class_name(i), share) for i, _, share in self._present()]

    def to_image(self) -> PIL.Image.Image:
        """Return the label map as a picture whose pixel values are the class indices; save it as PNG.

        With a palette, and up to 256 classes, viewers show its colors; beyond 256 classes it has 16 bits.
        """
        if self.label_map.dtype != torch.uint8:
            return PIL.Image.fromarray(self.label_map.to(torch.uint16).numpy())
        image = PIL.Image.fromarray(self.label_map.numpy())
        if self.palette is not None:
            image.putpalette([value for color in self.palette for value in color])
        return image

    def to_dict(self, k: int | None = None) -> dict[str, Any]:
        """Return a JSON-ready summary: the size and the `k` largest classes with their areas, None for all of them."""
        rows = [
            {"label": i, "name": self.class_name(i), "pixels": pixels, "share": round(share, 6)}
            for i, pixels, share in self._present()[:k]
        ]
        return {"size_hw": list(self.original_hw), "classes": rows}

    def _present(self) -> list[tuple[int, int, float]]:
        """Index, pixels and share of every class in the picture, largest first."""
        counts = self.pixel_counts
        order = counts.argsort(descending=True, stable=True)
        return [(int(i), int(counts[i]), float(counts[i]) / self.label_map.numel()) for i in order if counts[i]]
