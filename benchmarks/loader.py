"""Reading and augmenting training images beside timm's loader: the same JPEG files, transforms and cores in one run.

Photographs of scikit-image are cut to the sizes of ImageNet and written as JPEG, into folders and into
shards. Both loaders run the recipe of InternImage-T (random crop to 224, RandAugment, erasing) in this process, in
turns; what counts is processor time, which other programs on the machine do not change much.

Run: `python -m benchmarks.run --only loader`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL.Image
import torch

from benchmarks.record import print_table, save
from internimage.classification.batches.augment import keep_black
from internimage.classification.training.batches import train_batches
from internimage.classification.training.procedure import TRAINING
from internimage.data import open_dataset
from internimage.data.readers.shards.write import write_shards
from internimage.training import recipe

RECIPE, BATCH, MIN_ROUNDS = "internimage_t_1k_224", 16, 4
IMAGES, LARGE_IMAGES = 128, 16
SIZES_WH = ((500, 375), (375, 500), (500, 333), (400, 300), (640, 480))
LARGE_WH = ((3000, 2000), (2000, 3000))
QUALITY = 92
# A random crop keeps 8 % of an image and more, so that of this side it has 224 pixels to be resized from.
DECODE_SIDE = 800

Batches = Callable[[int], Iterable[Any]]  # of an epoch


def photographs() -> list[PIL.Image.Image]:
    """Return the color photographs that scikit-image brings along."""
    import skimage.data

    return [PIL.Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]


def write_images(root: Path, count: int, sizes_wh: tuple[tuple[int, int], ...]) -> None:
    """Write cuts of photographs into ten class folders."""
    rng = np.random.default_rng(0)
    photos = photographs()
    for i in range(count):
        photo, size = photos[i % len(photos)], sizes_wh[i % len(sizes_wh)]
        side = rng.uniform(0.6, 1.0) * min(photo.width / size[0], photo.height / size[1])
        width, height = side * size[0], side * size[1]
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        path = root / "train" / f"class{i % 10}" / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut = photo.resize(size, PIL.Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        cut.save(path, quality=QUALITY)


def ours(data: Path, *overrides: str) -> Batches:
    """Return a function that gives the batches of an epoch of our loader."""
    settings = ("data.workers=0", f"data.batch_size={BATCH}", "augment.mixup=0", "augment.cutmix=0", *overrides)
    chosen = recipe(RECIPE).with_overrides(settings)
    return train_batches(
        TRAINING.read(chosen, open_dataset(data, "train")), chosen, chosen.model.config.preprocess
    ).epoch


def timms(data: Path, *, prefetcher: bool) -> Batches:
    """Return the same for timm's loader with the transforms of the same recipe."""
    from timm.data import ImageDataset, create_loader

    augment = recipe(RECIPE).augment
    loader = create_loader(
        ImageDataset(str(data / "train")),
        input_size=(3, 224, 224),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=prefetcher,
        re_prob=augment.erase_probability,
        re_mode="pixel",
        scale=augment.crop_scale,
        color_jitter=0.0,
        auto_augment=augment.rand_augment,
        interpolation="bicubic",
        num_workers=0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    keep_black(loader.dataset.transform.transforms)
    return lambda _: loader


def milliseconds(loaders: dict[str, Batches], seconds: float) -> dict[str, float]:
    """Return the processor time of an image for each loader: the median of epochs, which are taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in loaders}
    start, number = time.monotonic(), 0
    while time.monotonic() - start < seconds or number < MIN_ROUNDS:
        for name, epoch in loaders.items():
            begin, images = time.process_time(), 0
            for batch in epoch(number):
                images += len(batch.pixels) if hasattr(batch, "pixels") else len(batch[0])
            found[name].append(1000 * (time.process_time() - begin) / images)
        number += 1
    return {name: median(values[1:]) for name, values in found.items()}  # the first epoch warms up


def run(device: str, *, seconds: float = 60.0) -> None:
    """Measure, print and save; the device has no part in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, count, sizes_wh in (("ImageNet sizes", IMAGES, SIZES_WH), ("6 megapixels", LARGE_IMAGES, LARGE_WH)):
            data, shards = Path(folder, name, "folders"), Path(folder, name, "shards")
            write_images(data, count, sizes_wh)
            write_shards(data, shards)
            loaders = {
                "ours": ours(data),
                "ours, from shards": ours(shards),
                f"ours, data.decode_side={DECODE_SIDE}": ours(data, f"data.decode_side={DECODE_SIDE}"),
                "timm": timms(data, prefetcher=False),
                "timm, prefetcher": timms(data, prefetcher=True),
            }
            found = milliseconds(loaders, seconds / 2)
            best = min(found["timm"], found["timm, prefetcher"])
            for loader, ms in found.items():
                speed = {"ms_per_image": ms, "images_per_second_and_core": 1000 / ms, "over_timm": best / ms}
                rows.append({"images": name, "loader": loader, **speed})
    torch.set_num_threads(threads)
    print_table("Training images, processor time of one core", rows)
    save("loader", "cpu", rows, recipe=RECIPE, batch=BATCH)
