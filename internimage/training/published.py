"""Which published checkpoint belongs to a recipe, and which recipe to a checkpoint."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from internimage.checkpoints.catalog import CatalogEntry, catalog, find
from internimage.hub.load import load


def published_checkpoint(recipe: str) -> CatalogEntry | None:
    """Return the checkpoint that a run of this recipe left behind, or None where there is none to start from.

    Example:
        >>> published_checkpoint("dino_4scale_internimage_t_1x_coco_layer_wise_lr").name
        'dino_4scale_internimage_t_1x_coco'
        >>> published_checkpoint("dino_internimage_pico_closet") is None
        True
    """
    entries = (entry for entry in catalog().values() if entry.recipe == recipe and entry.is_built)
    return next((entry for entry in entries if entry.source not in ("unpublished", "huggingface")), None)


def published_class_names(entry: CatalogEntry) -> tuple[str, ...] | None:
    """Return the classes of a checkpoint as far as they are known without a download, or None."""
    return _bundled_class_names(entry.name) if entry.source == "bundled" else entry.class_names


@functools.cache
def _bundled_class_names(name: str) -> tuple[str, ...] | None:
    return getattr(load(name).config, "class_names", None)


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
