"""How training images are varied: one image at a time (ImageNet) or a batch at a time (small images).

Shape legend: B images of a batch, C channels, S side in pixels, K classes.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from internimage.classification.preprocess import ClassificationPreprocess
from internimage.data.images.raster import Image, pixels_of
from internimage.data.randomness import seeded
from internimage.errors import MissingExtra
from internimage.recipe import Fraction, FromZero, RateFromZero

log = logging.getLogger(__name__)
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class AugmentSettings:
    """How training images are varied.

    Args:
        kind: "crop" cuts and resizes random regions (ImageNet, one image at a time); "shift" moves the whole
            image by a few pixels (a batch at a time; keeps the resized training set in memory).
        crop_scale: smallest and largest fraction of the image that "crop" keeps.
        shift_pixels: largest move of "shift" in input pixels.
        horizontal_flip: probability.
        rand_augment: policy in timm's notation, "" for none; for "crop" only.
        erase_probability: probability that a random box is overwritten with noise.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        mix_probability: probability that a batch is mixed at all.
        mix_switch_probability: probability of CutMix where both are on.
    """

    kind: Literal["crop", "shift"] = "crop"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    shift_pixels: FromZero = 4
    horizontal_flip: Fraction = 0.5
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    erase_probability: Fraction = 0.25
    mixup: RateFromZero = 0.8
    cutmix: RateFromZero = 1.0
    mix_probability: Fraction = 1.0
    mix_switch_probability: Fraction = 0.5


class CropTransform(ABC):
    """Varies an image: random resized crop, flip, RandAugment, normalization, random erasing.

    Draws from the global generators. The numbers are those of timm's transforms, in fewer passes over the pixels.

    Args:
        settings: sizes and probabilities.
        preprocess: size, mean and standard deviation.
    """

    def __init__(self, settings: AugmentSettings, preprocess: ClassificationPreprocess) -> None:
        from timm.data.random_erasing import RandomErasing

        self.shape = (preprocess.channels, preprocess.size, preprocess.size)
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
        erase = RandomErasing(settings.erase_probability, mode="pixel", max_count=1, device="cpu")
        self._erase = erase if settings.erase_probability else None

    @abstractmethod
    def vary(self, image: Image) -> Tensor:
        """Return (C, S, S) uint8 pixels of a varied crop."""

    def scale(self, pixels: Tensor) -> Tensor:
        """Bring 0..255 to 0..1, in place."""
        return pixels.div_(255)

    def __call__(self, image: Image, out: Tensor | None = None) -> Tensor:
        """Return the (C, S, S) float32 normalized pixels of a varied image, in `out` where it is given."""
        out = torch.empty(self.shape) if out is None else out
        self.scale(out.copy_(self.vary(image))).sub_(self._mean).div_(self._std)
        return out if self._erase is None else self._erase(out)


class _ColorTransform(CropTransform):
    """The published transform, for RGB."""

    def __init__(self, settings: AugmentSettings, preprocess: ClassificationPreprocess) -> None:
        from timm.data.transforms_factory import create_transform
        from torchvision.transforms import ToTensor

        super().__init__(settings, preprocess)
        published: Any = create_transform(
            preprocess.size,
            is_training=True,
            scale=settings.crop_scale,
            hflip=settings.horizontal_flip,
            color_jitter=0.0,
            auto_augment=settings.rand_augment or None,
            interpolation=preprocess.interpolation,
        )
        is_last = [isinstance(step, ToTensor) for step in published.transforms]
        self._steps = published.transforms[: is_last.index(True)]
        keep_black(self._steps)

    def vary(self, image: Image) -> Tensor:
        """Return (3, S, S) uint8 pixels of a varied crop."""
        for step in self._steps:
            image = step(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def keep_black(steps: Sequence[Any]) -> None:
    """Let RandAugment keep no bit of an image, as it does now and then: black; newer versions of Pillow refuse it."""
    from timm.data import auto_augment

    for step in steps:
        for operation in step.ops if isinstance(step, auto_augment.RandAugment) else ():
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = _posterize


def _posterize(image: PIL.Image.Image, bits_to_keep: int, **settings: Any) -> PIL.Image.Image:
    from timm.data import auto_augment

    if bits_to_keep < 1:
        return PIL.Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep, **settings)


class _ChannelTransform(CropTransform):
    """The transform for other numbers of channels: RandAugment is made for colors, and left out."""

    def __init__(self, settings: AugmentSettings, preprocess: ClassificationPreprocess) -> None:
        from torchvision.transforms import InterpolationMode, v2

        super().__init__(settings, preprocess)
        interpolation = InterpolationMode(preprocess.interpolation)
        self._crop = v2.RandomResizedCrop(
            preprocess.size, settings.crop_scale, interpolation=interpolation, antialias=True
        )
        self._flip = v2.RandomHorizontalFlip(settings.horizontal_flip)
        if settings.rand_augment:
            log.info("images of %d channels are not varied by RandAugment, which is for RGB", preprocess.channels)

    def vary(self, image: Image) -> Tensor:
        """Return (C, S, S) uint8 pixels of a varied crop."""
        return self._flip(self._crop(torch.from_numpy(pixels_of(image)).permute(2, 0, 1)))

    def scale(self, pixels: Tensor) -> Tensor:
        """Bring 0..255 to 0..1, in place, with the rounding of torchvision's second transforms."""
        return pixels.mul_(1 / 255)


def crop_transform(settings: AugmentSettings, preprocess: ClassificationPreprocess) -> CropTransform:
    """Return the published training transform.

    Raises:
        MissingExtra: timm is not installed.
    """
    try:
        return (_ColorTransform if preprocess.channels == 3 else _ChannelTransform)(settings, preprocess)
    except ImportError as error:
        raise MissingExtra("timm", "train", "the 'crop' augmentation") from error


def batch_mixer(
    settings: AugmentSettings, *, num_classes: int, label_smoothing: float
) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None:
    """Return a function (pixels, labels, seed) -> (mixed pixels, (B, K) targets), None when nothing is mixed.

    Raises:
        MissingExtra: timm is not installed.
    """
    if not settings.mixup and not settings.cutmix:
        return None
    try:
        from timm.data.mixup import Mixup
    except ImportError as error:
        raise MissingExtra("timm", "train", "mixup and CutMix") from error
    mixup: Any = Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        prob=settings.mix_probability,
        switch_prob=settings.mix_switch_probability,
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )

    def mix(pixels: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        with seeded(seed):
            return mixup(pixels.clone(), labels)

    return mix


def shift_batch(pixels: Tensor, settings: AugmentSettings, preprocess: ClassificationPreprocess, seed: int) -> Tensor:
    """Move, flip, normalize and erase a (B, C, S, S) uint8 batch, each image on its own, to float32.

    Where all channels are equal `pixels` may be (B, 1, S, S). What moves in from outside is black; all draws follow
    from `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    moved = _move_and_flip(pixels, settings, generator).to(torch.float32).div_(255)
    moved = moved.expand(-1, preprocess.channels, -1, -1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
    return _erase((moved - mean).div_(std), settings.erase_probability, generator)


def _move_and_flip(pixels: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `shift_pixels` in both directions and mirror some."""
    batch, _, height, width = pixels.shape
    reach = settings.shift_pixels
    padded = torch.nn.functional.pad(pixels, (reach, reach, reach, reach))
    shifts = torch.randint(0, 2 * reach + 1, (batch, 2), generator=generator)
    flips = torch.rand(batch, generator=generator) < settings.horizontal_flip
    rows = torch.arange(height) + shifts[:, :1]  # (B, S)
    columns = torch.arange(width).expand(batch, width)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + shifts[:, 1:]
    number = torch.arange(batch)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _erase(pixels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Overwrite a random box of some images with normal noise, as in Zhong et al., arXiv 1708.04896."""
    batch, channels, height, width = pixels.shape
    chosen = (torch.rand(batch, generator=generator) < probability).nonzero().flatten().tolist()
    draws = torch.rand(batch, 4, generator=generator).tolist()
    for i in chosen:
        area, aspect, top, left = draws[i]
        area = height * width * (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0]))
        low, high = math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])
        aspect = math.exp(low + aspect * (high - low))
        box_height = min(height, max(1, round(math.sqrt(area * aspect))))
        box_width = min(width, max(1, round(math.sqrt(area / aspect))))
        y, x = int(top * (height - box_height + 1)), int(left * (width - box_width + 1))
        noise = torch.randn(channels, box_height, box_width, generator=generator)
        pixels[i, :, y : y + box_height, x : x + box_width] = noise
    return pixels
