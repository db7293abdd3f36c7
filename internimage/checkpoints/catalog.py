"""The catalog: one typed row for every published checkpoint, and for the models that ship with this package.

`tables/checkpoints.tsv` is the one source; this file gives it types, aliases and a search. Rows are read once, at first
use.
"""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from internimage.backbones.config import COMPOSITE_PREFIX, VARIANTS, BackboneConfig
from internimage.errors import UnknownName, printable
from internimage.settings import replaced

Config = TypeVar("Config")

TABLES = Path(__file__).parent / "tables"
BUNDLED = Path(__file__).parent / "bundled"
NUMBERS = {"layer_scale": float, "num_classes": int, "parameters": int, "gflops": float}  # columns of the table

# Spellings of the same weights on other pages of the releases, beside those that `_normal` already makes equal.
ALIASES = {
    "internimage_l_22k_384": "internimage_l_22k_192to384",
    "internimage_xl_22k_384": "internimage_xl_22k_192to384",
    "internimage_g_jointto22k_384": "internimage_g_pretrainto22k_384",
    "hf:internimage_l_22k_192to384": "hf:internimage_l_22k_384",
    "hf:internimage_xl_22k_192to384": "hf:internimage_xl_22k_384",
    "hf:internimage_g_pretrainto22k_384": "hf:internimage_g_jointto22k_384",
}


@dataclass(frozen=True)
class CatalogEntry:
    """One checkpoint.

    Args:
        name: file name without ".pth"; "hf:" marks a folder in the format of Hugging Face Transformers.
        task: "classification", "detection", "segmentation", "occupancy", "online_map" or "lane_topology".
        backbone: name of the backbone's size, see `internimage.backbones.VARIANTS`.
        layer_scale: start value of the branch scales in this checkpoint's training, None where it has none; detectors
            and segmentors of T to XL were trained with scales even where the classifier has none.
        head: what stands on the backbone.
        method: method and schedule, as published.
        dataset: data of the published metrics.
        labels: name of the label set, see `internimage.data.labels`, or None.
        num_classes: classes that the model tells apart, or None.
        input_size: side of the square input of a classifier; the published size text of the other tasks.
        metrics: published ones in percent, for example {"top1": 83.5}.
        parameters: exact number of parameters where it is known.
        published_parameters: the number as published, for example "30M".
        gflops: published cost of one image in GFLOPs.
        licence: license of the release.
        url: file or folder to download, None where nothing was published.
        config_path: repository and path of the original configuration, or None.
        recipe: name of the training recipe that gave this model, see `internimage.training.RECIPES`, or None.
        remarks: what a user should know besides.
        is_built: whether this release builds the whole model.
    """

    name: str
    task: str
    backbone: str
    layer_scale: float | None
    head: str
    method: str
    dataset: str
    labels: str | None
    num_classes: int | None
    input_size: str | None
    metrics: Mapping[str, float]
    parameters: int | None
    published_parameters: str | None
    gflops: float | None
    licence: str
    url: str | None
    config_path: str | None
    recipe: str | None
    remarks: str
    is_built: bool

    @property
    def source(self) -> Literal["official", "huggingface", "bundled", "unpublished"]:
        """Where the weights come from: a .pth file, a Transformers folder, this package, or nowhere."""
        if self.url is None:
            return "unpublished"
        if self.url.startswith("bundled:"):
            return "bundled"
        return "huggingface" if self.name.startswith("hf:") else "official"

    @property
    def filename(self) -> str:
        """Name of the file to download; of the folder for Transformers rows."""
        if self.source == "huggingface":
            return self.name.removeprefix("hf:")
        return f"{self.name}.safetensors" if self.source == "bundled" else f"{self.name}.pth"

    @property
    def backbone_config(self) -> BackboneConfig | None:
        """Architecture of each backbone in this checkpoint, or None where this release does not build it."""
        size = self.backbone.removeprefix(COMPOSITE_PREFIX)
        if size not in VARIANTS:
            return None
        return dataclasses.replace(VARIANTS[size], layer_scale=self.layer_scale)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None where the release names none."""
        from internimage.data.labels import label_set  # reads tables that most rows do without

        return None if self.labels is None else label_set(self.labels).class_names

    def to_dict(self) -> dict[str, object]:
        """Return the row as JSON types."""
        return {**dataclasses.asdict(self), "metrics": dict(self.metrics), "source": self.source}


@functools.cache
def catalog() -> dict[str, CatalogEntry]:
    """Return every row by its name, in the order of the releases."""
    with (TABLES / "checkpoints.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["name"]: _entry(row) for row in rows}


def info(name: str) -> CatalogEntry:
    """Return the row of a checkpoint.

    Args:
        name: a name of `list_models`, in any published spelling, with or without ".pth".

    Raises:
        UnknownName: no such row; the message suggests the nearest ones.
        FileNotFoundError: no such row, and the name is that of a weight file.

    Example:
        >>> info("internimage_g_jointto22k_384.pth").name
        'internimage_g_pretrainto22k_384'
        >>> info("internimage_t_1k_224").metrics["top1"]
        83.5
    """
    entry = find(name)
    if entry is None:
        raise not_there(name)
    return entry


def model_row(row: str | CatalogEntry, task: str) -> tuple[CatalogEntry, BackboneConfig, int]:
    """Return the row of a model of a task, which may be given by its name, its backbone and how many classes it has.

    Raises:
        ValueError: the row is of another task, or this release does not build its backbone.
    """
    entry = info(row) if isinstance(row, str) else row
    backbone, num_classes = entry.backbone_config, entry.num_classes
    if entry.task != task or backbone is None or num_classes is None:
        raise ValueError(f"{entry.name} is no {task} model that this release builds; its task is {entry.task}")
    return entry, backbone, num_classes


def row_of_recipe(recipe: str) -> CatalogEntry | None:
    """Return the row of the model that a recipe trains, in the original's format where there are two; None for no row.

    Example:
        >>> row_of_recipe("dino_4scale_internimage_t_1x_coco_layer_wise_lr").name
        'dino_4scale_internimage_t_1x_coco'
    """
    rows = (entry for entry in catalog().values() if entry.recipe == recipe and entry.is_built)
    return next((entry for entry in rows if entry.source != "huggingface"), None)


def trained_config(recipe: str, published: Callable[[str], Config], *, drop_path_rate: float) -> Config:
    """Return the configuration of the published model that a recipe trains, with the stochastic depth of the training.

    Raises:
        ValueError: no row names this recipe.
    """
    row = row_of_recipe(recipe)
    if row is None:
        raise ValueError(f"no row of the catalog names the recipe {recipe}; add one, or give the recipe a model")
    return replaced(published(row.name), {"backbone.drop_path_rate": drop_path_rate})


def not_there(name: str) -> UnknownName | FileNotFoundError:
    """Return the error for what is neither a file nor in the catalog; names of models that can be loaded are suggested.

    Example:
        >>> not_there("nothere.pth")
        FileNotFoundError('no file or folder at nothere.pth, and no checkpoint of the catalog has this name')
    """
    path = Path(name)
    if re.fullmatch(r"\.[A-Za-z]\w*", path.suffix) or len(path.parts) > 1:  # names hold "0.1x", too
        return FileNotFoundError(
            f"no file or folder at {printable(path)}, and no checkpoint of the catalog has this name"
        )
    names = [entry.name for entry in catalog().values() if entry.is_built]
    return UnknownName("model", name, names, "internimage.list_models() lists them all.")


def find(name: str) -> CatalogEntry | None:
    """Return the row of a name in any published spelling, or None."""
    return _index().get(_normal(name))


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Return the names of checkpoints, in the order of the releases.

    Args:
        pattern: shell pattern such as "mask_rcnn*".
        task: keep one task only, for example "classification".

    Raises:
        UnknownName: no checkpoint has this task.

    Example:
        >>> list_models("internimage_t*")
        ['internimage_t_1k_224']
        >>> len(list_models(task="detection"))
        36
    """
    tasks = sorted({entry.task for entry in catalog().values()})
    if task is not None and task not in tasks:
        raise UnknownName("task", task, tasks)
    matches = (entry for name, entry in catalog().items() if fnmatch.fnmatchcase(name.lower(), pattern.lower()))
    return [entry.name for entry in matches if task in (None, entry.task)]


@functools.cache
def _index() -> dict[str, CatalogEntry]:
    """Every accepted spelling, normalized, and its row."""
    index = {_normal(name): entry for name, entry in catalog().items()}
    return index | {_normal(alias): catalog()[name] for alias, name in ALIASES.items()}


def _normal(name: str) -> str:
    """Make the spellings of one checkpoint equal.

    The files say "flash_intern_image" and "flash_internimage" for the same models, and the owner of a Hub folder is
    part of its public name.
    """
    name = re.sub(r"\.(pth|pt|safetensors)$", "", name.strip().lower())
    name = re.sub(r"^opengvlab/", "hf:", name)
    return name.replace("intern_image", "internimage")


def _entry(row: Mapping[str, str]) -> CatalogEntry:
    """Give one line of the table its types; an empty cell is None."""
    cells: dict[str, Any] = {name: NUMBERS.get(name, str)(text) if text else None for name, text in row.items()}
    metrics = dict(item.split("=") for item in row["metrics"].split(";") if item)
    cells["metrics"] = {name: float(value) for name, value in metrics.items()}
    return CatalogEntry(**{**cells, "remarks": row["remarks"], "is_built": row["is_built"] == "yes"})
