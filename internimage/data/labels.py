"""Label sets: the class names, identifiers and colors that go with the published checkpoints.

Sources: ImageNet names as torchvision publishes them; ImageNet-22k synsets and their WordNet lemmas in the order of the
fall-2011 release; the others as the published detectors and segmentors name them.
"""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from internimage.errors import UnknownName

TABLES = Path(__file__).parent / "tables"
IMAGENET_1K, IMAGENET_22K = "imagenet_1k", "imagenet_22k"

# ImageNet-1k class 850 (n04399382, teddy bear) is missing from the 21,841 classes. The release sends it to the row of
# class 849 (n04398044, teapot), so both classes start from the same weights.
MISSING_SYNSET, ITS_ROW = "n04399382", 11136


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of the logits.

    Args:
        name: name of the set, for example "coco_80".
        class_names: one name for each class.
        palette: one (red, green, blue) color 0..255 for each class, or None.
        synsets: one WordNet identifier for each class, or None.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None = None
    synsets: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.class_names)


def label_set_names() -> list[str]:
    """Return the names of all label sets."""
    return [IMAGENET_1K, IMAGENET_22K, *_tables()]


@functools.cache
def label_set(name: str) -> LabelSet:
    """Return a label set by its name.

    Raises:
        UnknownName: no such set; the message suggests the nearest ones.

    Example:
        >>> label_set("coco_80").class_names[:3]
        ('person', 'bicycle', 'car')
    """
    if name == IMAGENET_1K:
        return _synset_table(name, (TABLES / "imagenet_1k.tsv").read_text(encoding="utf-8"))
    if name == IMAGENET_22K:
        return _synset_table(name, gzip.decompress((TABLES / "imagenet_22k.tsv.gz").read_bytes()).decode())
    if name not in _tables():
        raise UnknownName("label set", name, label_set_names())
    classes, palette = _tables()[name]["classes"], _tables()[name]["palette"]
    return LabelSet(name, tuple(classes), None if palette is None else tuple((r, g, b) for r, g, b in palette))


def imagenet_names(num_classes: int) -> tuple[str, ...] | None:
    """Return the names of the classes of ImageNet by their number, 1000 or 21,841; None for any other number.

    Example:
        >>> imagenet_names(1000)[0], imagenet_names(10)
        ('tench', None)
    """
    name = {1000: IMAGENET_1K, 21841: IMAGENET_22K}.get(num_classes)
    return None if name is None else label_set(name).class_names


@functools.cache
def rows_22k_to_1k() -> tuple[int, ...]:
    """Return, for each ImageNet-1k class, its row in the 21,841-way head.

    Two classes share a row, see `MISSING_SYNSET`.

    Example:
        >>> rows_22k_to_1k()[:5]
        (359, 368, 460, 475, 486)
    """
    rows = {synset: row for row, synset in enumerate(label_set(IMAGENET_22K).synsets or ())}
    rows[MISSING_SYNSET] = ITS_ROW
    return tuple(rows[synset] for synset in label_set(IMAGENET_1K).synsets or ())


def _synset_table(name: str, text: str) -> LabelSet:
    """Read lines of "synset<TAB>class name"."""
    pairs = [line.split("\t") for line in text.splitlines()]
    return LabelSet(name, tuple(title for _, title in pairs), synsets=tuple(synset for synset, _ in pairs))


@functools.cache
def _tables() -> dict[str, dict[str, list]]:
    return json.loads((TABLES / "label_sets.json").read_text(encoding="utf-8"))
