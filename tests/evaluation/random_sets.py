"""Random data sets in the form of COCO with answers to them: crowds, empty images, ties, objects without area."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import mask as run_length

HEIGHT, WIDTH = 40, 60


def random_set(seed: int, *, lvis: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations and answers; answers have boxes and masks, `lvis` adds what its metric reads."""
    draw = np.random.default_rng(seed)
    classes = int(draw.integers(1, 5))
    ids = sorted(draw.choice(50, classes, replace=False).tolist())
    images, annotations, answers = [], [], []
    for number in range(int(draw.integers(1, 7))):
        image: dict[str, Any] = {"id": number + 1, "height": HEIGHT, "width": WIDTH, "file_name": f"{number}.png"}
        boxes = [_box(draw) for _ in range(int(draw.integers(0, 6)))]
        for box in boxes:
            entry = {
                "id": len(annotations) + 1,
                "image_id": number + 1,
                "category_id": int(draw.choice(ids)),
                "bbox": box,
            }
            entry |= {"area": box[2] * box[3], "segmentation": _mask(box), "iscrowd": 0}
            if not lvis:
                entry["iscrowd"] = int(draw.random() < 0.15)
            elif draw.random() < 0.1:
                entry["area"] = 0
            annotations.append(entry)
        if lvis:
            image |= {key: _some(draw, ids) for key in ("neg_category_ids", "not_exhaustive_category_ids")}
        images.append(image)
        for _ in range(int(draw.integers(0, 9))):
            near = boxes and draw.random() < 0.7
            box = _shifted(draw, boxes[int(draw.integers(len(boxes)))]) if near else _box(draw)
            is_empty = lvis and draw.random() < 0.1
            mask = _mask([0, 0, 0, 0] if is_empty else box)
            answer = {"image_id": number + 1, "category_id": int(draw.choice(ids)), "bbox": box, "segmentation": mask}
            answers.append({**answer, "score": round(float(draw.random()), 1)})  # ties on purpose
    categories = [{"id": i, "name": f"class {i}", "frequency": "rcf"[k % 3]} for k, i in enumerate(ids)]
    return {"images": images, "annotations": annotations, "categories": categories}, answers


def _box(draw: np.random.Generator) -> list[int]:
    left, top = int(draw.integers(0, WIDTH - 4)), int(draw.integers(0, HEIGHT - 4))
    return [left, top, int(draw.integers(2, WIDTH - left + 1)), int(draw.integers(2, HEIGHT - top + 1))]


def _shifted(draw: np.random.Generator, box: list[int]) -> list[int]:
    left, top = (max(0, side + int(draw.integers(-2, 3))) for side in box[:2])
    return [left, top, min(box[2] + int(draw.integers(0, 3)), WIDTH - left), min(box[3], HEIGHT - top)]


def _mask(box: list[int]) -> dict[str, Any]:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
    encoded = run_length.encode(pixels)
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


def _some(draw: np.random.Generator, ids: list[int]) -> list[int]:
    return [i for i in ids if draw.random() < 0.3]
