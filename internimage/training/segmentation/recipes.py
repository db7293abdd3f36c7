"""The recipes of segmentors: the published runs by the names of their configurations, and small ones.

Sources: the segmentation configurations of the InternImage and FlashInternImage releases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from internimage.segmentation import PreprocessConfig, SlidingWindow
from internimage.segmentation.batches.augment import PUBLISHED, Augmentation
from internimage.training.dense.pretrained import DROP_PATH, FLASH_DROP_PATH, FLASH_PRETRAINED, PRETRAINED
from internimage.training.dense.settings import DenseOptimizerSettings, DenseScheduleSettings
from internimage.training.segmentation.config import (
    SegmentationDataSettings,
    SegmentationModelSettings,
    SegmentationRecipe,
)
from internimage.training.settings import EmaSettings, RunSettings

# Sizes that were trained without layer-wise decay and at a higher rate.
PLAIN = ("t", "s", "b")
# UperNet and SegFormer were trained with the 150 outputs of ADE20K on street scenes, too.
STREET_ROWS = 150


def _schedule(iterations: int, validate_every: int) -> DenseScheduleSettings:
    """A rate that falls in a straight line to zero, under a warm-up of 1,500 steps."""
    return DenseScheduleSettings(
        kind="poly",
        epochs=0,
        iterations=iterations,
        steps=(),
        warmup_iterations=1500,
        warmup_ratio=1e-6,
        validate_every=validate_every,
    )


def _read(side: int, *, multiple: int = 32) -> PreprocessConfig:
    """Images with a shorter side of `side` pixels, the longer one at most four times as long."""
    return PreprocessConfig(scale=(4 * side, side), multiple=multiple)


_STREETS = PreprocessConfig(scale=(2048, 1024))


def _street_windows(side: int) -> PreprocessConfig:
    return PreprocessConfig(scale=(2048, 1024), multiple=32, window=SlidingWindow((side, side), (512, 512)))


def _published(
    name: str,
    model: SegmentationModelSettings,
    pipeline: str,
    preprocess: PreprocessConfig,
    *,
    lr: float,
    layer_decay: float,
    clip_norm: float,
    iterations: int,
    validate_every: int,
    batch_size: int,
    miou: float | None = None,
) -> SegmentationRecipe:
    """A published run; each was made with eight devices (upernet_..._h_896 and mask2former_..._2ade20k with 16)."""
    return SegmentationRecipe(
        name=name,
        model=model,
        data=SegmentationDataSettings(batch_size=batch_size),
        augment=PUBLISHED[pipeline],
        preprocess=preprocess,
        optimizer=DenseOptimizerSettings(
            lr=lr,
            layer_decay=layer_decay,
            clip_norm=clip_norm,
            slow_mask_embeddings=model.architecture.startswith("mask2former"),
        ),
        schedule=_schedule(iterations, validate_every),
        published_miou=miou,
    )


def _model(head: str, size: str, **changes: Any) -> SegmentationModelSettings:
    """An InternImage of a size with a head; starts from the published classifier unless told otherwise."""
    settings: dict[str, Any] = dict(
        drop_path_rate=DROP_PATH[size],
        backbone_weights=PRETRAINED[size],
        activation_checkpointing=size in ("h", "g"),
        count_ignored_pixels=not head.startswith("mask2former"),
    )
    return SegmentationModelSettings(head, f"internimage_{size}", **{**settings, **changes})


def _upernet_ade(size: str, side: int, miou: float | None) -> SegmentationRecipe:
    is_plain, is_huge = size in PLAIN, size in ("h", "g")
    return _published(
        f"upernet_internimage_{size}_{side}_160k_ade20k",
        _model("upernet", size),
        f"ade20k_{side}x{side}",
        _read(side),
        lr=6e-5 if is_plain else 2e-5,
        layer_decay=1.0 if is_plain else 0.95 if is_huge else 0.94,
        clip_norm=0.0 if is_plain else 0.1,
        iterations=160_000,
        validate_every=16_000,
        batch_size=1 if is_huge else 2,
        miou=miou,
    )


def _upernet_cityscapes(size: str, miou: float) -> SegmentationRecipe:
    is_plain = size in PLAIN
    return _published(
        f"upernet_internimage_{size}_512x1024_160k_cityscapes",
        _model("upernet", size, classifier_rows=STREET_ROWS),
        "cityscapes_512x1024",
        _STREETS,
        lr=6e-5 if is_plain else 2e-5,
        layer_decay=1.0 if is_plain else 0.94,
        clip_norm=0.0 if is_plain else 0.1,
        iterations=160_000,
        validate_every=16_000,
        batch_size=2,
        miou=miou,
    )


def _from_mapillary(head: str, size: str, miou: float) -> SegmentationRecipe:
    """Cityscapes with its coarsely labeled part, from a SegFormer of Mapillary; UperNet takes only its backbone."""
    start = f"segformer_internimage_{size}_512x1024_80k_mapillary"
    weights: dict[str, Any] = dict(backbone_weights=start)
    if head == "segformer":
        weights = dict(backbone_weights=None, weights=start)
    recipe = _published(
        f"{head}_internimage_{size}_512x1024_160k_mapillary2cityscapes",
        _model(head, size, classifier_rows=STREET_ROWS, **weights),
        "cityscapes_512x1024",
        _STREETS,
        lr=2e-5,
        layer_decay=0.94,
        clip_norm=0.1,
        iterations=160_000,
        validate_every=4000,
        batch_size=2,
        miou=miou,
    )
    return replace(recipe, data=replace(recipe.data, train_split="train+train_extra"))


def _mapillary(head: str, size: str) -> SegmentationRecipe:
    """The 19 street classes of Mapillary Vistas; the original validated on Cityscapes."""
    recipe = _published(
        f"{head}_internimage_{size}_512x1024_80k_mapillary",
        _model(head, size, classifier_rows=STREET_ROWS),
        "mapillary_512x1024",
        _STREETS,
        lr=2e-5,
        layer_decay=0.94,
        clip_norm=0.1,
        iterations=80_000,
        validate_every=8000,
        batch_size=2,
    )
    return replace(recipe, data=replace(recipe.data, train_split="train+val"))


def _mask2former_h(
    name: str,
    pipeline: str,
    preprocess: PreprocessConfig,
    *,
    head: str = "mask2former",
    start: str | None = None,
    reset_head: bool = False,
    lr: float = 2e-5,
    clip_norm: float = 0.0,
    iterations: int = 80_000,
    validate_every: int = 2000,
    batch_size: int = 1,
    miou: float | None = None,
) -> SegmentationRecipe:
    """Mask2Former on InternImage-H, from the classifier or from another Mask2Former."""
    whole: dict[str, Any] = {} if start is None else dict(backbone_weights=None, weights=start, reset_head=reset_head)
    return _published(
        name,
        _model(head, "h", **whole),
        pipeline,
        preprocess,
        lr=lr,
        layer_decay=0.95,
        clip_norm=clip_norm,
        iterations=iterations,
        validate_every=validate_every,
        batch_size=batch_size,
        miou=miou,
    )


_STUFF = "mask2former_internimage_h_896_80k_cocostuff164k"
_VISTAS = "mask2former_internimage_h_896x896_80k_mapillary"
_FROM_STUFF: dict[str, Any] = dict(head="mask2former_large", start=_STUFF, lr=1e-5)


def _mask2former_street(name: str, side: int, pipeline: str, **changes: Any) -> SegmentationRecipe:
    return _mask2former_h(name, pipeline, _street_windows(side), clip_norm=0.1, batch_size=2, **changes)


def _ade_from_stuff(looks: str, miou: float) -> SegmentationRecipe:
    """The two configurations differ only in how the finished model is tested: at one scale or at several."""
    return _mask2former_h(
        f"mask2former_internimage_h_896_80k_cocostuff2ade20k_{looks}",
        "ade20k_896x896",
        _read(896),
        clip_norm=0.1,
        reset_head=True,
        miou=miou,
        **_FROM_STUFF,
    )


_MASK2FORMER = (
    _ade_from_stuff("ss", 0.626),
    _ade_from_stuff("ms", 0.626),
    _mask2former_h(
        _STUFF,
        "coco_stuff_164k_896x896",
        _read(896),
        head="mask2former_large",
        validate_every=8000,
        miou=0.526,
    ),
    _mask2former_h(
        "mask2former_internimage_h_512_40k_cocostuff164k_to_10k",
        "coco_stuff_10k_512x512",
        _read(512),
        iterations=40_000,
        miou=0.592,
        **_FROM_STUFF,
    ),
    _mask2former_h(
        "mask2former_internimage_h_480_40k_pascal_context_59",
        "pascal_context_480x480",
        PreprocessConfig(scale=(4096, 520), multiple=32),
        iterations=40_000,
        miou=0.697,
    ),
    _mask2former_h(
        "mask2former_internimage_h_480_40k_nyu",
        "nyu_480x480",
        PreprocessConfig(scale=(640, 480), multiple=32),
        iterations=40_000,
        miou=0.671,
    ),
    _mask2former_street(_VISTAS, 896, "mapillary_896x896"),
    _mask2former_street(
        "mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes",
        1024,
        "cityscapes_1024x1024",
        start=_VISTAS,
        lr=1e-5,
        miou=0.8637,
    ),
)


def _flash(
    head: str,
    size: str,
    side: int,
    *,
    suffix: str = "",
    miou: float | None,
    drop_path_rate: float | None = None,
    layer_decay: float = 1.0,
    clip_norm: float = 0.0,
    validate_every: int = 16_000,
) -> SegmentationRecipe:
    """160,000 steps of ADE20K on FlashInternImage."""
    is_mask2former = head.startswith("mask2former")
    model = SegmentationModelSettings(
        head,
        f"flash_internimage_{size}",
        drop_path_rate=FLASH_DROP_PATH[size] if drop_path_rate is None else drop_path_rate,
        backbone_weights=FLASH_PRETRAINED[size],
        activation_checkpointing=True,
        count_ignored_pixels=not is_mask2former,
    )
    return _published(
        f"{'mask2former' if is_mask2former else head}_flash_internimage_{size}_{side}_160k_ade20k{suffix}",
        model,
        f"ade20k_{side}x{side}",
        # The smallest UperNet alone was tested without rounding the sides up.
        _read(side, multiple=1 if not is_mask2former and size == "t" else 32),
        lr=1e-4 if is_mask2former else 6e-5 if size in PLAIN else 2e-5,
        layer_decay=layer_decay,
        clip_norm=clip_norm,
        iterations=160_000,
        validate_every=validate_every,
        batch_size=2,
        miou=miou,
    )


_QUERIES: dict[str, Any] = dict(head="mask2former_flash", side=640, clip_norm=0.1, validate_every=5000)
_FLASH = (
    _flash("upernet", "t", 512, miou=0.493),
    _flash("upernet", "s", 512, miou=0.506),
    _flash("upernet", "b", 512, miou=0.520),
    _flash("upernet", "l", 640, layer_decay=0.94, clip_norm=0.1, miou=0.556),
    _flash(
        "mask2former",
        "t",
        512,
        suffix="_ss",
        layer_decay=0.9,
        clip_norm=0.01,
        validate_every=5000,
        miou=0.512,
    ),
    _flash(size="s", suffix="_ss", miou=0.526, **_QUERIES),
    _flash(size="s", suffix="_ss_nsmx", miou=None, **{**_QUERIES, "head": "mask2former_flash_raw"}),
    _flash(size="b", suffix="_ss", drop_path_rate=0.4, miou=0.534, **_QUERIES),
    _flash(
        size="l",
        suffix="_ss",
        drop_path_rate=0.5,
        layer_decay=0.94,
        miou=0.567,
        **{**_QUERIES, "validate_every": 2000},
    ),
)


def _closet(head: str, *, lr: float, epochs: int, side: int) -> SegmentationRecipe:
    """Garment scenes on one CPU core, seen at `side` pixels: as many different ones as possible, only mirrored."""
    return SegmentationRecipe(
        name=f"{head}_internimage_pico_closet",
        model=SegmentationModelSettings(
            f"{head}_small",
            "internimage_pico",
            drop_path_rate=0.0,
            backbone_weights="internimage_pico_fashion",
        ),
        data=SegmentationDataSettings(batch_size=8, val_batch_size=8, workers=0),
        augment=Augmentation(
            crop_hw=(side, side), scale=(side, side), ratio_range=(1.0, 1.0), category_limit=1.0, photometric=None
        ),
        preprocess=PreprocessConfig(scale=(side, side), multiple=32),
        optimizer=DenseOptimizerSettings(lr=lr, clip_norm=1.0),
        schedule=DenseScheduleSettings(
            kind="poly", epochs=epochs, steps=(), warmup_iterations=200, warmup_ratio=0.01, validate_every=1
        ),
        ema=EmaSettings(decay=0.998, warmup=True),
        run=RunSettings(precision="auto"),
    )


RECIPES: dict[str, SegmentationRecipe] = {
    recipe.name: recipe
    for recipe in (
        _closet("upernet", lr=1e-3, epochs=8, side=288),
        _closet("mask2former", lr=4e-4, epochs=8, side=192),
        _upernet_ade("t", 512, 0.479),
        _upernet_ade("s", 512, 0.501),
        _upernet_ade("b", 512, 0.508),
        _upernet_ade("l", 640, 0.539),
        _upernet_ade("xl", 640, 0.550),
        _upernet_ade("h", 896, 0.599),
        _upernet_ade("g", 896, None),
        _upernet_cityscapes("t", 0.8258),
        _upernet_cityscapes("s", 0.8274),
        _upernet_cityscapes("b", 0.8318),
        _upernet_cityscapes("l", 0.8368),
        _upernet_cityscapes("xl", 0.8362),
        _from_mapillary("upernet", "l", 0.8594),
        _from_mapillary("upernet", "xl", 0.8620),
        _from_mapillary("segformer", "l", 0.8516),
        _from_mapillary("segformer", "xl", 0.8541),
        *(_mapillary(head, size) for head in ("upernet", "segformer") for size in ("l", "xl")),
        *_MASK2FORMER,
        *_FLASH,
    )
}
