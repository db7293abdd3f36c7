"""How many pixels of each class the masks of a data set hold.

Shape legend: H W image size, K classes.
"""

from __future__ import annotations

import numpy as np

from internimage.data.dataset import ImageDataset, Selection
from internimage.data.examples import ExampleCount
from internimage.data.label_maps.dataset import SegmentationDataset
from internimage.data.label_maps.label_map import IGNORED

FEW, MOST = 64, 1000  # masks that are read: a few, more while classes are missing
MAX_PIXELS = 500_000_000  # of all masks that are read after the few


def count_pixels(dataset: ImageDataset[np.ndarray]) -> ExampleCount:
    """Count the labeled pixels of each class, in 64 masks, or more where these lack a class; images are not read.

    Raises:
        ValueError: not one of the masks can be read.
    """
    number = len(dataset)
    counts = np.zeros(256, dtype=np.int64)
    looked_at, broken = 0, []
    for i in np.random.default_rng(0).permutation(number)[:MOST].tolist():
        if looked_at >= FEW and (counts[: len(dataset.class_names)].all() or counts.sum() > MAX_PIXELS):
            break
        looked_at += 1
        try:
            label_map = read_mask(dataset, i)
        except (ValueError, OSError) as error:
            broken.append(str(error))
            continue
        counts += np.bincount(label_map.ravel(), minlength=256)
    if broken and len(broken) == looked_at:
        raise ValueError(f"none of {looked_at} masks can be read; the first one: {broken[0]}")
    others = {"pixels without a label (255 in most masks)": int(counts[IGNORED])}
    if broken:
        others[f"masks that cannot be read (the first one: {broken[0]})"] = len(broken)
    names = dataset.class_names
    own = counts[: len(names)].tolist() if len(names) <= IGNORED else counts.tolist()
    return ExampleCount("labeled pixels", names, tuple(own), others, looked_at, number, _advice(counts, names))


def read_mask(dataset: ImageDataset[np.ndarray], index: int) -> np.ndarray:
    """Return the (H, W) uint8 label map of a sample, without reading its image where that is possible.

    Raises:
        ValueError: the mask is broken; the message names its file.
    """
    while isinstance(dataset, Selection):
        dataset, index = dataset.dataset, int(dataset.indices[index])
    return dataset.label_map(index) if isinstance(dataset, SegmentationDataset) else dataset[index].target


def _advice(counts: np.ndarray, class_names: tuple[str, ...]) -> str:
    """Say what 255 means, where it stands in for a class."""
    # `counts` has an entry for each value of a mask, also for those beyond the classes.
    absent = [name for name, count in zip(class_names, counts.tolist(), strict=False) if not count]
    if not counts[IGNORED] or not (absent or len(class_names) == 1):
        return ""
    meant = f"the class {absent[0]!r}" if absent else "a second class"
    values = [0, 255] if len(class_names) <= 2 else [*range(len(class_names) - 1), 255]
    return (
        f"the value 255 stands for pixels without a label; if it marks {meant}, write classes.json with the value of "
        f'each class, for example {{"classes": [...], "values": {values if len(values) < 9 else "[0, 255, ...]"}}}'
    )
