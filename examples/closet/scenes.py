"""Scenes of the closet: garments on photographs, composed on this computer.

Each scene shows garments of Fashion-MNIST, scaled, turned and partly hiding one another, on a crop of a
photograph that ships with scikit-image. Training scenes use the training images of Fashion-MNIST and the left parts
of the photographs, validation scenes the test images and the right parts: no pixel is shared.

Shape legend: H W size of a scene, P P side of a garment's patch, G garments of a scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import skimage.data
from PIL.Image import Resampling

from internimage.data import FashionMNIST
from internimage.data.readers.fashion_mnist import CLASS_NAMES as CLASS_NAMES

from .garments import garment_mask, turned

# Photographs inside the scikit-image package, by the names of their functions; the last three are gray textures.
PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "retina",
    "immunohistochemistry",
    "hubble_deep_field",
    "brick",
    "grass",
    "gravel",
)
SPLITS = ("train", "val")
TRAIN_FRACTION = 0.6  # of the width of a photograph
MIN_CROP_PX = 110

GARMENTS_PER_SCENE = (2, 5)
LONG_SIDE = (60 / 192, 128 / 192)  # of the scene's shorter side
MAX_TURN_DEG = 20.0
OUTSIDE_FRACTION = 0.12  # of a garment's size may lie outside of the scene
MIN_VISIBLE = 0.7
PLACEMENTS = 40  # tries for all garments of a scene, beside one for each


@dataclass(frozen=True)
class Scene:
    """One composed image.

    Args:
        image: (H, W, 3) uint8 RGB.
        owner: (H, W) int16 index of the garment seen at each pixel, -1 for the photograph.
        labels: class of each garment, 0..9.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: tuple[int, ...]


@dataclass(frozen=True)
class _Patch:
    """A garment ready to be laid on a scene: where its corner lies, its shades, its opacity and its mask."""

    top: int
    left: int
    shade: np.ndarray  # (P, P) float32 gray, 0..255
    opacity: np.ndarray  # (P, P) float32, 0..1
    mask: np.ndarray  # (P, P) bool
    label: int


class Closet:
    """An endless numbered sequence of scenes; scene `i` depends on the seed, the split and `i` alone.

    Args:
        fashion_mnist: folder with the idx files of Fashion-MNIST.
        split: "train" or "val".
        size_hw: (height, width) of the scenes in pixels, each at least 64.
        seed: another seed gives other scenes.
        photos: folder with own photographs, used beside those of scikit-image; None for those alone.

    Raises:
        FileNotFoundError: a file of Fashion-MNIST or the folder of photographs is missing.
        ValueError: `split` is unknown, `size_hw` too small, or a photograph unreadable.
    """

    def __init__(
        self,
        fashion_mnist: str | PathLike[str],
        split: str,
        *,
        size_hw: tuple[int, int] = (192, 192),
        seed: int = 0,
        photos: str | PathLike[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, given {split!r}")
        if min(size_hw) < 64:
            raise ValueError(f"scenes need at least 64 pixels in height and width, given {size_hw}")
        self.garments = FashionMNIST(fashion_mnist, "train" if split == "train" else "val")
        self.photographs = [_part(photo, split) for photo in _shipped_photographs() + _own_photographs(photos)]
        self.size_hw = (int(size_hw[0]), int(size_hw[1]))
        self._seed = (seed, SPLITS.index(split))

    def scene(self, index: int) -> Scene:
        """Compose scene `index`, 0 or more."""
        rng = np.random.default_rng((*self._seed, index))
        canvas = self._background(rng)
        owner = np.full(self.size_hw, -1, dtype=np.int16)
        wanted = int(rng.integers(GARMENTS_PER_SCENE[0], GARMENTS_PER_SCENE[1] + 1))
        labels: list[int] = []
        full_areas: list[int] = []
        for _ in range(wanted + PLACEMENTS):
            if len(labels) == wanted:
                break
            patch = self._patch(rng)
            candidate = _laid(owner, patch, len(labels))
            areas = np.bincount(candidate[candidate >= 0], minlength=len(labels) + 1)
            if (areas >= MIN_VISIBLE * np.array([*full_areas, int(patch.mask.sum())])).all():
                owner = candidate
                _paint(canvas, patch)
                labels.append(patch.label)
                full_areas.append(int(patch.mask.sum()))
        return Scene(np.rint(canvas).astype(np.uint8), owner, tuple(labels))

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """Return a (H, W, 3) float32 crop of a photograph, flipped and brightened at random."""
        photo = self.photographs[int(rng.integers(len(self.photographs)))]
        height, width = self.size_hw
        largest = min(photo.height / height, photo.width / width)
        smallest = min(largest, MIN_CROP_PX / min(height, width))
        factor = smallest + (min(largest, 2.0) - smallest) * rng.random() if largest > smallest else largest
        crop_h, crop_w = factor * height, factor * width
        top, left = rng.random() * (photo.height - crop_h), rng.random() * (photo.width - crop_w)
        box = (left, top, left + crop_w, top + crop_h)
        crop = np.asarray(photo.resize((width, height), Resampling.BILINEAR, box=box), dtype=np.float32)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        gain, shift = rng.uniform(0.6, 1.2), rng.uniform(-15, 25)
        return np.clip(crop * np.float32(gain) + np.float32(shift), 0, 255)

    def _patch(self, rng: np.random.Generator) -> _Patch:
        """Scale and turn a random garment and choose its place."""
        index = int(rng.integers(len(self.garments)))
        gray = self.garments.images[index]
        mask = garment_mask(gray)
        if rng.random() < 0.5:
            gray, mask = gray[:, ::-1], mask[:, ::-1]
        low, high = (math.log(fraction * min(self.size_hw)) for fraction in LONG_SIDE)
        turn = math.radians(rng.uniform(-MAX_TURN_DEG, MAX_TURN_DEG))
        shade, soft, scale = turned(gray, mask, math.exp(rng.uniform(low, high)), turn)
        top, left = (
            round(rng.uniform(-OUTSIDE_FRACTION * side, whole - (1 - OUTSIDE_FRACTION) * side))
            for side, whole in zip(soft.shape, self.size_hw, strict=True)
        )
        opacity = np.clip((soft - 0.5) * max(scale, 1.0) + 0.5, 0, 1)  # an edge about one pixel wide
        return _Patch(top, left, shade, opacity, soft >= 0.5, int(self.garments.labels[index]))


def _overlap(top: int, left: int, shape: tuple[int, ...], size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """Return where a patch lies in the scene, and which part of the patch that is."""
    bounds = [
        (max(start, 0), min(start + length, whole), start)
        for start, length, whole in zip((top, left), shape[:2], size_hw, strict=True)
    ]
    rows, columns = (slice(begin, end) for begin, end, _ in bounds)
    own_rows, own_columns = (slice(begin - start, end - start) for begin, end, start in bounds)
    return (rows, columns), (own_rows, own_columns)


def _laid(owner: np.ndarray, patch: _Patch, index: int) -> np.ndarray:
    """Return the owners after laying a garment on top."""
    there, own = _overlap(patch.top, patch.left, patch.mask.shape, owner.shape)
    laid = owner.copy()
    laid[there][patch.mask[own]] = index
    return laid


def _paint(canvas: np.ndarray, patch: _Patch) -> None:
    there, own = _overlap(patch.top, patch.left, patch.mask.shape, (canvas.shape[0], canvas.shape[1]))
    opacity, shade = (layer[own][..., None] for layer in (patch.opacity, patch.shade))
    canvas[there] += opacity * (shade - canvas[there])


def _shipped_photographs() -> list[PIL.Image.Image]:
    images = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    images.append(skimage.data.stereo_motorcycle()[0])
    return [PIL.Image.fromarray(image).convert("RGB") for image in images]


def _own_photographs(folder: str | PathLike[str] | None) -> list[PIL.Image.Image]:
    if folder is None:
        return []
    suffixes = PIL.Image.registered_extensions()
    files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise ValueError(f"{folder} holds no photographs; expected files such as .jpg or .png directly in it")
    return [PIL.ImageOps.exif_transpose(PIL.Image.open(path)).convert("RGB") for path in files]


def _part(photo: PIL.Image.Image, split: str) -> PIL.Image.Image:
    """Cut a photograph: its left part is for training, its right part for validation."""
    border = round(photo.width * TRAIN_FRACTION)
    return photo.crop((0, 0, border, photo.height) if split == "train" else (border, 0, photo.width, photo.height))


def label_map(scene: Scene) -> np.ndarray:
    """Return the (H, W) uint8 classes of the pixels of a scene: 0 the photograph, 1 to 10 the garments."""
    values = np.array([0, *(label + 1 for label in scene.labels)], dtype=np.uint8)
    return values[scene.owner + 1]
