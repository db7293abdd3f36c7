"""Small scenes of colored rectangles with boxes, masks and label maps: something to learn within seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from internimage.training import recipe

CLASS_NAMES = ("red", "green", "blue")
SIDE = 64

# Two epochs of four steps with two images each; no start weights.
TINY_DENSE = (
    "model.backbone_weights=none",
    "data.batch_size=2",
    "schedule.epochs=2",
    "schedule.warmup_iterations=2",
    "schedule.validate_every=1",
    "run.precision=fp32",
    "run.tensorboard=false",
    "run.plot=false",
)
# Images as large as the scenes, by task.
SMALL = {
    "detection": (
        *("preprocess.shorter_side=64", "preprocess.longer_side=64", "augment.shorter_side=48,64"),
        *("augment.longer_side=64", "data.val_batch_size=2", "model.max_per_image=5"),
    ),
    "segmentation": (
        *("preprocess.scale=64,64", "augment.scale=64,64", "augment.crop_hw=64,64", "data.val_batch_size=2"),
    ),
}


def scene_recipe(name: str, *overrides: str) -> Any:
    """A published recipe of pico that learns the scenes: `name` of the model, TINY_DENSE, SMALL and other overrides."""
    given = recipe(f"{name}_internimage_pico_closet")
    return given.with_overrides([*TINY_DENSE, *SMALL[given.task], *overrides])


def write_scenes(root: Path, *, train: int = 8, val: int = 4) -> Path:
    """Write a data set in the layouts of COCO and of own segmentation data."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(("background", *CLASS_NAMES)), encoding="utf-8")
    for split, number in (("train", train), ("val", val)):
        (root / split).mkdir()
        (root / "labels" / split).mkdir(parents=True)
        images, objects = [], []
        for index in range(1, number + 1):
            image = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            label_map = np.zeros((SIDE, SIDE), dtype=np.uint8)
            for label in (int(rng.integers(3)), int(rng.integers(3))):
                height, width = (int(side) for side in rng.integers(16, 40, 2))
                top, left = int(rng.integers(SIDE - height)), int(rng.integers(SIDE - width))
                image[top : top + height, left : left + width, label] = 220
                label_map[top : top + height, left : left + width] = label + 1
                objects.append(_object(len(objects) + 1, index, label, left, top, width, height))
            PIL.Image.fromarray(image).save(root / split / f"{index}.png")
            PIL.Image.fromarray(label_map).save(root / "labels" / split / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "height": SIDE, "width": SIDE})
        categories = [{"id": 10 * i, "name": name} for i, name in enumerate(CLASS_NAMES, 1)]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def _object(number: int, image: int, label: int, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    right, bottom = left + width, top + height
    return {
        "id": number,
        "image_id": image,
        "category_id": 10 * (label + 1),
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    }
