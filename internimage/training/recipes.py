"""All recipes by name, from files, and the published checkpoints that belong to them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internimage import tasks
from internimage.checkpoints.catalog import CatalogEntry, find, row_of_recipe
from internimage.data.untrusted.files import read_bytes
from internimage.errors import UnknownName
from internimage.recipe import Recipe
from internimage.settings import hint_of, leaves, to_plain_value, value_of

logger = logging.getLogger(__name__)
MAX_FILE_BYTES = 2**20
RECIPES: dict[str, Recipe] = {
    name: recipe
    for task in tasks.MODULES
    if (module := tasks.station(task, "training.recipes")) is not None
    for name, recipe in module.RECIPES.items()
}
KINDS: dict[str, type[Recipe]] = {recipe.task: type(recipe) for recipe in RECIPES.values()}


def recipe(name: str) -> Recipe:
    """Return a recipe by its name, by that of the checkpoint that its run left behind, or out of a YAML or JSON file.

    Raises:
        UnknownName: no such recipe; the message suggests the nearest ones, for a checkpoint how to train on from it.
        ValueError: the file holds no recipe.

    Example:
        >>> recipe("internimage_t_1k_224").schedule.epochs
        300
    """
    if name in RECIPES:
        return RECIPES[name]
    if Path(name).suffix.lower() in (".yaml", ".yml", ".json"):
        return read_recipe(Path(name))
    advice = advice_for(name)
    if advice is None:
        raise UnknownName("recipe", name, RECIPES, "`internimage train --list` shows them all.")
    if not advice.settings:
        logger.info("the recipe of the checkpoint %s is called %s", name, advice.recipe)
        return RECIPES[advice.recipe]
    settings = " ".join(f"--set {text}" for text in advice.settings)
    raise UnknownName(
        "recipe",
        name,
        [advice.recipe],
        f"It is a checkpoint; `internimage train {advice.recipe} {settings}` trains on.",
    )


# --- files


def document(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as files hold it: its task and its settings."""
    return {"task": recipe.task, **recipe.to_dict()}


def with_short_names(recipe: Recipe) -> dict[str, object]:
    """Return what `document` does, with the short names of settings that lie deep, as a run writes it down."""
    content = document(recipe)
    places = dict(leaves(recipe))
    for name in (*recipe.CHOICES, *recipe.SHORT):
        if name in recipe.CHOICES or recipe.key(name) in places:
            section, _, last = name.partition(".")
            content.setdefault(section, {})[last] = to_plain_value(recipe.value(name))
    return content


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML.

    Example:
        >>> to_yaml(RECIPES["internimage_t_1k_224"]).splitlines()[:2]
        ['task: classification', 'name: internimage_t_1k_224']
    """
    import yaml

    return yaml.safe_dump(document(recipe), sort_keys=False, default_flow_style=None, width=110)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML or JSON file.

    What a file with the name of a published recipe leaves out is as in that recipe; elsewhere it takes its default.
    What differs from them counts as chosen by the user.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large, no YAML, or holds no recipe; the message says what is wrong.
    """
    text = read_bytes(path, max_bytes=MAX_FILE_BYTES)
    try:
        return from_document(_parsed(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def from_document(content: Mapping[str, object]) -> Recipe:
    """Rebuild a recipe from what `document` returned, see `read_recipe`.

    Raises:
        ValueError: a setting is unknown or out of its range.
        TypeError: a setting is missing or has the wrong type.
    """
    values = dict(content)
    base = RECIPES.get(str(values.get("name")))
    task = values.pop("task", None if base is None else base.task)
    if not isinstance(task, str) or task not in KINDS:
        raise ValueError(f"task must be one of {', '.join(KINDS)}, given {task!r}")
    kind = KINDS[task]
    short, values = _parted(values, (*kind.CHOICES, *kind.SHORT))
    if base is not None and base.task == task:
        found = _with_short(kind.from_dict(_merged(base.to_dict(), values)), short)
        usual = dict(leaves(base))
        return replace(found, explicit=frozenset(key for key, value in leaves(found) if usual.get(key) != value))
    found = _with_short(kind.from_dict(values), short)
    given = {*_paths(values), *map(found.key, short)}
    return replace(found, explicit=frozenset(key for key, _ in leaves(found) if key in given))


def _parted(values: Mapping[str, object], names: Sequence[str]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the settings that stand under short names, and the others."""
    short: dict[str, object] = {}
    others = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for name in names:
        section, _, last = name.partition(".")
        inner = others.get(section)
        if isinstance(inner, dict) and last in inner:
            short[name] = inner.pop(last)
            if not inner:
                del others[section]
    return short, others


def _with_short(recipe: Recipe, short: Mapping[str, object]) -> Recipe:
    """Return a recipe with what a file says under short names, where it says something else."""
    places = dict(leaves(recipe))
    if unknown := [name for name in short if name not in recipe.CHOICES and recipe.key(name) not in places]:
        raise ValueError(f"{', '.join(unknown)}: this model has no such setting")
    changed = {name: value for name, value in short.items() if to_plain_value(recipe.value(name)) != value}
    for name, choice in recipe.CHOICES.items():
        if name in changed:
            recipe = choice.apply(recipe, value_of(choice.hint, changed.pop(name), name))
    keys = {recipe.key(name): (name, value) for name, value in changed.items()}
    return recipe.with_values({key: value_of(hint_of(recipe, key), value, name) for key, (name, value) in keys.items()})


def _parsed(text: bytes) -> Mapping[str, object]:
    """Read YAML without aliases, which could unfold to any size, and with 1e-4 as a number."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not read")
            return super().compose_node(parent, index)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
    try:
        content = yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no valid YAML: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError("expected the settings of a recipe, such as name, model and schedule")
    return content


def _merged(base: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """Put values over those of a published recipe; a model of another kind replaces the whole of its configuration."""
    merged = dict(base)
    for key, value in values.items():
        old = base.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and (key != "config" or value.keys() <= old.keys()):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _paths(values: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


# --- published checkpoints


def published_checkpoint(recipe: str) -> CatalogEntry | None:
    """Return the checkpoint that a run of this recipe left behind, or None where there is none to start from.

    Example:
        >>> published_checkpoint("dino_4scale_internimage_t_1x_coco_layer_wise_lr").name
        'dino_4scale_internimage_t_1x_coco'
        >>> published_checkpoint("dino_internimage_pico_closet") is None
        True
    """
    entry = row_of_recipe(recipe)
    return None if entry is None or entry.source == "unpublished" else entry


# What the catalog calls the metrics of published runs, and what lists of recipes call them.
_METRICS = {
    **{"top1": "top1", "boxAP": "box_ap", "boxAP_val_ss": "box_ap", "mAP_ss": "box_ap", "VOC2007": "box_ap"},
    **{"maskAP": "mask_ap", "mIoU_ss": "miou"},
}
# Runs whose checkpoint was published once for two of them: the other one, and the metric of this one.
_SHARED = {
    "dino_4scale_cbinternimage_h_objects365_lvis_minival_ss": (
        "dino_4scale_cbinternimage_h_objects365_lvis_val_ss",
        "boxAP_minival_ss",
    ),
    "dino_4scale_cbinternimage_h_objects365_voc12": ("dino_4scale_cbinternimage_h_objects365_voc07", "VOC2012"),
    "mask2former_internimage_h_896_80k_cocostuff2ade20k_ms": (
        "mask2former_internimage_h_896_80k_cocostuff2ade20k_ss",
        "mIoU_ss",
    ),
}


def published_metrics(recipe: str) -> dict[str, float]:
    """Return the metrics that the original reached with a recipe, in percent, by name; empty where none are known.

    Example:
        >>> published_metrics("mask_rcnn_internimage_t_fpn_1x_coco")
        {'box_ap': 47.2, 'mask_ap': 42.5}
    """
    name, metric = _SHARED.get(recipe, (recipe, None))
    entry = published_checkpoint(name)
    if entry is None or entry.source == "bundled":
        return {}
    if metric is not None:
        return {_METRICS.get(metric, "box_ap"): entry.metrics[metric]}
    return {_METRICS[key]: value for key, value in entry.metrics.items() if key in _METRICS}


@dataclass(frozen=True)
class Advice:
    """A command that trains on from a checkpoint.

    Args:
        recipe: name of the recipe.
        settings: what to change in it, as "section.key=value" texts.
    """

    recipe: str
    settings: tuple[str, ...] = ()


# Classifiers whose training was not published: runs of the same size that were.
_SISTERS = {
    "flash_intern_image_t_1k_224": "internimage_t_1k_224",
    "flash_intern_image_s_1k_224": "internimage_s_1k_224",
    "flash_intern_image_b_1k_224": "internimage_b_1k_224",
    "flash_internimage_l_22kto1k_384": "internimage_l_22kto1k_384",
    "flash_intern_image_l_22k_384": "internimage_l_22kto1k_384",
    "internimage_l_22k_192to384": "internimage_l_22kto1k_384",
    "internimage_xl_22k_192to384": "internimage_xl_22kto1k_384",
    "internimage_h_jointto22k_384": "internimage_h_22kto1k_640",
    "internimage_g_pretrainto22k_384": "internimage_g_22kto1k_512",
}


def advice_for(checkpoint: str) -> Advice | None:
    """Return how to train on from a checkpoint whose name is no recipe's, or None where nothing is known.

    Args:
        checkpoint: a name in any published spelling.

    Example:
        >>> advice_for("mask_rcnn_flash_internimage_t_fpn_1x_coco")
        Advice(recipe='mask_rcnn_flash_intern_image_t_fpn_1x_coco', settings=())
        >>> advice_for("flash_intern_image_t_1k_224").settings
        ('model.backbone=flash_internimage_t', 'model.weights=flash_intern_image_t_1k_224')
    """
    entry = find(checkpoint)
    if entry is None:
        return None
    if entry.recipe is not None:
        is_usual = published_checkpoint(entry.recipe) == entry
        return Advice(entry.recipe, () if is_usual else (f"model.weights={entry.name}",))
    sister = _SISTERS.get(entry.name)
    if sister is None:
        return None
    backbone = () if entry.backbone is None else (f"model.backbone={entry.backbone}",)
    return Advice(sister, (*backbone, f"model.weights={entry.name}"))
