"""Data sets of closet scenes in files: scenes with COCO annotations and label maps, and crops of single garments."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from pycocotools import mask as coco_masks

from .scenes import CLASS_NAMES, SPLITS, Closet, Scene, label_map

JPEG_QUALITY = 94
CROP_MARGIN = (0.9, 1.9)  # side of a crop over the longer side of the garment's box
CROP_SHIFT = 0.1  # of the side, in each direction


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` when all went well, and vanishes otherwise."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty; give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        unfinished.replace(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def write_closet(
    out: str | PathLike[str],
    *,
    fashion_mnist: str | PathLike[str],
    train_scenes: int = 2000,
    val_scenes: int = 500,
    size_hw: tuple[int, int] = (192, 192),
    seed: int = 0,
    photos: str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the closet data set: images, COCO annotations with masks, and label maps.

    `train/` and `val/` hold the images, `annotations/train.json` and `annotations/val.json` boxes and masks of what
    is visible, `labels/train/` and `labels/val/` label maps: 0 is the photograph, 1 to 10 are the garments in the
    order of `classes.txt`.

    Args:
        out: folder to be made; it may exist when it is empty.
        fashion_mnist: folder with the idx files of Fashion-MNIST.
        train_scenes: number of training scenes, 0 or more.
        val_scenes: number of validation scenes, 0 or more.
        size_hw: (height, width) of the scenes in pixels.
        seed: another seed gives another data set.
        photos: folder with own photographs, used beside those of scikit-image; None for those alone.
        progress: called with (scenes written, scenes in all) after each scene.

    Raises:
        FileExistsError: `out` exists and is not empty.
        FileNotFoundError: a file of Fashion-MNIST or the folder of photographs is missing.
    """
    if min(train_scenes, val_scenes) < 0:
        raise ValueError(f"the numbers of scenes must not be negative, given {train_scenes} and {val_scenes}")
    numbers = {"train": train_scenes, "val": val_scenes}
    closets = {split: Closet(fashion_mnist, split, size_hw=size_hw, seed=seed, photos=photos) for split in SPLITS}
    with _new_folder(Path(out)) as folder:
        (folder / "annotations").mkdir()
        (folder / "labels").mkdir()
        (folder / "classes.txt").write_text("\n".join(("background", *CLASS_NAMES)) + "\n", "utf-8")
        done = 0
        for split, number in numbers.items():
            done = _write_split(folder, split, closets[split], number, done, sum(numbers.values()), progress)


def _write_split(
    root: Path,
    split: str,
    closet: Closet,
    number: int,
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Write the scenes of one split; returns how many scenes are written by now."""
    (root / split).mkdir()
    (root / "labels" / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(number):
        scene = closet.scene(index)
        name = f"{index:06d}"
        PIL.Image.fromarray(scene.image).save(root / split / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0)
        PIL.Image.fromarray(label_map(scene)).save(root / "labels" / split / f"{name}.png")
        height, width = scene.owner.shape
        images.append({"id": index + 1, "file_name": f"{name}.jpg", "height": height, "width": width})
        for entry in _entries(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **entry})
        done += 1
        if progress is not None:
            progress(done, total)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(document, separators=(",", ":")), "utf-8")
    return done


def _entries(scene: Scene) -> list[dict[str, Any]]:
    """Return class, box, area and run lengths of each garment in the form of COCO."""
    entries: list[dict[str, Any]] = []
    for index, label in enumerate(scene.labels):
        mask = scene.owner == index
        run_lengths = coco_masks.encode(np.asfortranarray(mask, dtype=np.uint8))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        entries.append(
            {
                "category_id": label + 1,
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(mask.shape), "counts": run_lengths["counts"].decode("ascii")},
            }
        )
    return entries


def write_crops(
    out: str | PathLike[str],
    *,
    fashion_mnist: str | PathLike[str],
    train_scenes: int = 12000,
    val_scenes: int = 500,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `train/<class>/` and `val/<class>/`: a square image of each garment of many scenes, as it is seen there.

    A classifier learns garments among other things from them, many times faster than a detector does from whole scenes;
    its backbone is what the closet recipes start from.

    Args:
        out: folder to be made; it may exist when it is empty.
        fashion_mnist: folder with the idx files of Fashion-MNIST.
        train_scenes: number of scenes that training crops are cut from.
        val_scenes: number of scenes that validation crops are cut from.
        seed: another seed gives other scenes; take another one than that of `write_closet`.
        progress: called with (scenes done, scenes in all) after each scene.

    Raises:
        FileExistsError: `out` exists and is not empty.
        FileNotFoundError: a file of Fashion-MNIST is missing.
    """
    numbers = {"train": train_scenes, "val": val_scenes}
    if min(numbers.values()) < 1:
        raise ValueError(f"crops need at least one scene for each split, given {train_scenes} and {val_scenes}")
    closets = {split: Closet(fashion_mnist, split, seed=seed) for split in SPLITS}
    done = 0
    with _new_folder(Path(out)) as folder:
        for split, number in numbers.items():
            for name in CLASS_NAMES:
                (folder / split / _folder_name(name)).mkdir(parents=True)
            rng = np.random.default_rng((seed, SPLITS.index(split)))
            for index in range(number):
                scene = closets[split].scene(index)
                for owner, label in enumerate(scene.labels):
                    file = folder / split / _folder_name(CLASS_NAMES[label]) / f"{index:06d}_{owner}.jpg"
                    _crop(scene, owner, rng).save(file, quality=JPEG_QUALITY, subsampling=0)
                done += 1
                if progress is not None:
                    progress(done, sum(numbers.values()))


def _folder_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _crop(scene: Scene, owner: int, rng: np.random.Generator) -> PIL.Image.Image:
    """Cut a square around a garment, moved into the scene where it would leave it."""
    rows, columns = (np.flatnonzero((scene.owner == owner).any(axis=axis)) for axis in (1, 0))
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    side = min(int(rng.uniform(*CROP_MARGIN) * longer), *scene.owner.shape)
    shifts = rng.uniform(-CROP_SHIFT, CROP_SHIFT, size=2) * side
    top, left = (
        int(np.clip((own[0] + own[-1] + 1 - side) / 2 + shift, 0, whole - side))
        for own, shift, whole in zip((rows, columns), shifts, scene.owner.shape, strict=True)
    )
    return PIL.Image.fromarray(scene.image[top : top + side, left : left + side])
