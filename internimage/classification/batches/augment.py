"""How training images are varied: one image at a time (ImageNet) or a batch at a time (small images).

Shape legend: B images of a batch, C channels, S side in pixels, K classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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


def crop_transform(settings: AugmentSettings, preprocess: ClassificationPreprocess) -> Callable[[Any], Tensor]:
    """Return the published training transform: image to (C, S, S) normalized pixels.

    Random resized crop, flip, RandAugment, normalization, random erasing. It draws from the global generators.
    RandAugment is made for colors: images of other channels than RGB are cropped, mirrored and erased only.

    Raises:
        MissingExtra: timm is not installed.
    """
    try:
        from timm.data.transforms_factory import create_transform
    except ImportError as error:
        raise MissingExtra("timm", "train", "the 'crop' augmentation") from error
    if preprocess.channels != 3:
        return _ChannelTransform(settings, preprocess)
    transform: Any = create_transform(
        preprocess.size,
        is_training=True,
        scale=settings.crop_scale,
        hflip=settings.horizontal_flip,
        color_jitter=0.0,
        auto_augment=settings.rand_augment or None,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        re_prob=settings.erase_probability,
        re_mode="pixel",
        re_count=1,
    )
    return transform


class _ChannelTransform:
    """The transform for any number of channels; it can be sent to a reading process."""

    def __init__(self, settings: AugmentSettings, preprocess: ClassificationPreprocess) -> None:
        from timm.data.random_erasing import RandomErasing
        from torchvision.transforms import InterpolationMode, v2

        interpolation = InterpolationMode(preprocess.interpolation)
        steps: list[Any] = [
            v2.RandomResizedCrop(preprocess.size, settings.crop_scale, interpolation=interpolation, antialias=True),
            v2.RandomHorizontalFlip(settings.horizontal_flip),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(preprocess.mean), list(preprocess.std)),
        ]
        if settings.erase_probability:
            steps.append(RandomErasing(settings.erase_probability, mode="pixel", max_count=1, device="cpu"))
        if settings.rand_augment:
            log.info("images of %d channels are not varied by RandAugment, which is for RGB", preprocess.channels)
        self.steps = v2.Compose(steps)

    def __call__(self, image: Image) -> Tensor:
        """Map an image to (C, S, S) normalized pixels."""
        return self.steps(torch.from_numpy(pixels_of(image)).permute(2, 0, 1))


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
