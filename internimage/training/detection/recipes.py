"""The recipes of detectors: the published runs by the names of their configurations, and small ones.

Sources: the detection configurations of the InternImage and FlashInternImage releases.
"""

from __future__ import annotations

from typing import Any

from internimage.detection import PreprocessConfig
from internimage.training.dense.pretrained import DROP_PATH, FLASH_DROP_PATH, FLASH_PRETRAINED, PRETRAINED
from internimage.training.dense.settings import DenseOptimizerSettings, DenseScheduleSettings
from internimage.training.detection.config import (
    DetectionAugmentSettings,
    DetectionDataSettings,
    DetectionModelSettings,
    DetectionRecipe,
)
from internimage.training.settings import EmaSettings, RunSettings

ONE, THREE = DenseScheduleSettings(), DenseScheduleSettings(epochs=36, steps=(27, 33))
DINO_ONE = DenseScheduleSettings(steps=(11,))
NORMAL = PreprocessConfig()
LARGE = PreprocessConfig(shorter_side=1000, longer_side=2000)
# The average that follows the weights at first, see `EmaSettings`.
FOLLOWING = EmaSettings(decay=0.9999, follow_steps=2000)
NO_EMA = EmaSettings(decay=0.0)
_80_CLASSES = "dino_4scale_cbinternimage_h_objects365_80classes"
_20_CLASSES = "dino_4scale_cbinternimage_h_objects365_20classes"


def _recipe(
    name: str,
    model: DetectionModelSettings,
    pipeline: str,
    schedule: DenseScheduleSettings,
    *,
    batch_size: int = 2,
    metric: Any = "coco",
    balance_threshold: float = 0.0,
    preprocess: PreprocessConfig = NORMAL,
    ema: EmaSettings = NO_EMA,
    box_ap: float | None = None,
    mask_ap: float | None = None,
    **optimizer: Any,
) -> DetectionRecipe:
    """A published run; the rest are optimizer settings."""
    return DetectionRecipe(
        name=name,
        model=model,
        data=DetectionDataSettings(batch_size=batch_size, metric=metric, balance_threshold=balance_threshold),
        augment=DetectionAugmentSettings(pipeline=pipeline),
        preprocess=preprocess,
        optimizer=DenseOptimizerSettings(**optimizer),
        schedule=schedule,
        ema=ema,
        published_box_ap=box_ap,
        published_mask_ap=mask_ap,
    )


def _model(architecture: str, size: str, **changes: Any) -> DetectionModelSettings:
    """An InternImage of a size under a detector; starts from the published classifier unless told otherwise."""
    start: dict[str, Any] = dict(drop_path_rate=DROP_PATH[size], backbone_weights=PRETRAINED[size])
    return DetectionModelSettings(architecture, f"internimage_{size}", **{**start, **changes})


def _flash_model(architecture: str, size: str, **changes: Any) -> DetectionModelSettings:
    start: dict[str, Any] = dict(
        drop_path_rate=FLASH_DROP_PATH[size], backbone_weights=FLASH_PRETRAINED[size], activation_checkpointing=True
    )
    return DetectionModelSettings(architecture, f"flash_internimage_{size}", **{**start, **changes})


def _mask_rcnn(size: str, passes: int, box_ap: float, mask_ap: float) -> DetectionRecipe:
    """Mask R-CNN, published with 16 images in a step."""
    return _recipe(
        f"mask_rcnn_internimage_{size}_fpn_{passes}x_coco",
        _model("mask_rcnn", size),
        f"{passes}x",
        ONE if passes == 1 else THREE,
        box_ap=box_ap,
        mask_ap=mask_ap,
    )


def _cascade(size: str, passes: int, box_ap: float, mask_ap: float) -> DetectionRecipe:
    """Cascade Mask R-CNN, published with 16 images in a step, 64 for the three-fold schedule."""
    is_short = passes == 1
    drop_path_rate = 0.6 if (size, passes) == ("xl", 3) else 0.4
    return _recipe(
        f"cascade_internimage_{size}_fpn_{passes}x_coco",
        _model("cascade_mask_rcnn", size, drop_path_rate=drop_path_rate),
        f"{passes}x",
        ONE if is_short else THREE,
        ema=NO_EMA if is_short else FOLLOWING,
        box_ap=box_ap,
        mask_ap=mask_ap,
        lr=1e-4 if is_short else 2e-4,
        layer_decay=0.94 if is_short else 0.9,
        offset_lr_multiplier=1.0 if is_short else 0.01,
    )


def _dino(size: str, suffix: str, box_ap: float, *, model: dict[str, Any], **optimizer: Any) -> DetectionRecipe:
    """DINO in twelve epochs, published with 16 images in a step."""
    return _recipe(
        f"dino_4scale_internimage_{size}_1x_coco_{suffix}",
        _model("dino", size, **model),
        "dino_1x",
        DINO_ONE,
        box_ap=box_ap,
        clip_norm=0.1,
        **optimizer,
    )


_LAYER_WISE: dict[str, Any] = dict(weight_decay=1e-4, layer_decay=0.9)


def _large_dino(
    name: str,
    backbone: str,
    *,
    iterations: int,
    validate_every: int,
    pipeline: str = "large_1200",
    lr: float = 1e-4,
    metric: str = "coco",
    balance_threshold: float = 0.0,
    box_ap: float | None = None,
    **changes: Any,
) -> DetectionRecipe:
    """DINO of a size that was pre-trained on Objects365, at a constant rate after the warm-up; eight devices."""
    model = DetectionModelSettings(
        "dino",
        backbone,
        drop_path_rate=0.5,
        activation_checkpointing=True,
        denoising_queries=1000,
        **changes,
    )
    return _recipe(
        f"dino_4scale_{name}",
        model,
        pipeline,
        DenseScheduleSettings(epochs=0, iterations=iterations, steps=(), validate_every=validate_every),
        batch_size=1,
        metric=metric,
        balance_threshold=balance_threshold,
        preprocess=LARGE,
        box_ap=box_ap,
        lr=lr,
        weight_decay=1e-4,
        layer_decay=0.94,
        offset_lr_multiplier=0.001,
        clip_norm=0.1,
        composite_layer_decay=False,
    )


def _composite(data: str, **changes: Any) -> DetectionRecipe:
    return _large_dino(f"cbinternimage_h_objects365_{data}", "cb_internimage_h", **changes)


_COCO: dict[str, Any] = dict(iterations=20_000, validate_every=200, pipeline="large_1800")
_VOC: dict[str, Any] = dict(iterations=20_000, validate_every=500, pipeline="voc", lr=5e-5, weights=_20_CLASSES)
_LVIS: dict[str, Any] = dict(
    iterations=80_000,
    validate_every=500,
    metric="lvis",
    balance_threshold=1e-3,
    weights=_80_CLASSES,
    reset_head=True,
)
_LARGE = (
    # The Objects365 weights that the two runs on a single backbone started from were not published.
    _large_dino("internimage_h_objects365_coco_ss", "internimage_h", box_ap=0.634, **_COCO),
    _large_dino("internimage_g_objects365_coco_ss", "internimage_g", feedforward_slices=4, box_ap=0.642, **_COCO),
    _composite("coco_ss", weights=_80_CLASSES, box_ap=0.645, **_COCO),
    _composite("lvis_minival_ss", box_ap=0.658, **_LVIS),
    _composite("lvis_val_ss", box_ap=0.623, **_LVIS),
    _composite(
        "openimages_ss",
        iterations=100_000,
        validate_every=2000,
        metric="openimages",
        weights=_80_CLASSES,
        reset_head=True,
        box_ap=0.741,
    ),
    _composite("voc07", metric="voc2007", box_ap=0.940, **_VOC),
    _composite("voc12", metric="voc2012", box_ap=0.972, **_VOC),
)


def _flash_mask_rcnn(
    size: str, passes: int, box_ap: float, mask_ap: float, *, batch_size: int = 2, **optimizer: Any
) -> DetectionRecipe:
    drop_path_rate = 0.4 if size != "t" and passes == 3 else FLASH_DROP_PATH[size]
    return _recipe(
        f"mask_rcnn_flash_intern_image_{size}_fpn_{passes}x_coco",
        _flash_model("mask_rcnn", size, drop_path_rate=drop_path_rate),
        f"{passes}x",
        ONE if passes == 1 else THREE,
        batch_size=batch_size,
        box_ap=box_ap,
        mask_ap=mask_ap,
        **optimizer,
    )


def _flash_cascade(passes: int, box_ap: float, mask_ap: float, **changes: Any) -> DetectionRecipe:
    return _recipe(
        f"cascade_flash_intern_image_l_fpn_{passes}x_coco",
        _flash_model("cascade_mask_rcnn", "l"),
        f"{passes}x",
        ONE if passes == 1 else THREE,
        box_ap=box_ap,
        mask_ap=mask_ap,
        **changes,
    )


def _flash_dino(size: str, box_ap: float, *, batch_size: int = 4, **optimizer: Any) -> DetectionRecipe:
    return _recipe(
        f"dino_4scale_flash_internimage_{size}_1x_coco",
        _flash_model("dino", size),
        "dino_1x",
        DINO_ONE,
        batch_size=batch_size,
        box_ap=box_ap,
        clip_norm=0.1,
        **optimizer,
    )


_FLASH = (
    _flash_mask_rcnn("t", 1, 0.480, 0.431),
    _flash_mask_rcnn("t", 3, 0.495, 0.440),
    _flash_mask_rcnn("s", 1, 0.492, 0.440),
    _flash_mask_rcnn("s", 3, 0.505, 0.449, batch_size=8, lr=2e-4),
    _flash_mask_rcnn("b", 1, 0.501, 0.445),
    _flash_mask_rcnn(
        "b",
        3,
        0.506,
        0.454,
        batch_size=4,
        lr=2e-4,
        layer_decay=0.9,
        offset_lr_multiplier=0.01,
    ),
    _flash_cascade(1, 0.556, 0.482, layer_decay=0.94),
    _flash_cascade(
        3,
        0.567,
        0.489,
        batch_size=4,
        ema=FOLLOWING,
        lr=2e-4,
        layer_decay=0.9,
        offset_lr_multiplier=0.01,
    ),
    _flash_dino("t", 0.547, lr=2e-4, **_LAYER_WISE),
    _flash_dino("s", 0.553, lr=2e-4, **_LAYER_WISE),
    _flash_dino("b", 0.560, lr=2e-4, **_LAYER_WISE),
    _flash_dino("l", 0.588, batch_size=2, rule="backbone", backbone_lr_multiplier=0.1),
)


def _closet(name: str, architecture: str, *, side: int, smallest_crop: float, lr: float) -> DetectionRecipe:
    """Garment scenes of 192 x 192 pixels, seen at `side` pixels, on one CPU core."""
    return DetectionRecipe(
        name=f"{name}_internimage_pico_closet",
        model=DetectionModelSettings(
            architecture,
            "internimage_pico",
            drop_path_rate=0.0,
            backbone_weights="internimage_pico_fashion",
        ),
        data=DetectionDataSettings(batch_size=8, val_batch_size=8, workers=0),
        augment=DetectionAugmentSettings(
            pipeline="own", shorter_side=(side, side), longer_side=side, smallest_crop=smallest_crop, flip=0.5
        ),
        preprocess=PreprocessConfig(shorter_side=side, longer_side=side),
        optimizer=DenseOptimizerSettings(lr=lr, layer_decay=0.9, clip_norm=1.0),
        schedule=DenseScheduleSettings(
            kind="poly", epochs=24, steps=(), warmup_iterations=200, warmup_ratio=0.01, validate_every=2
        ),
        ema=EmaSettings(decay=0.998, warmup=True),
        run=RunSettings(precision="auto"),
    )


RECIPES: dict[str, DetectionRecipe] = {
    recipe.name: recipe
    for recipe in (
        _closet("mask_rcnn", "mask_rcnn_small", side=288, smallest_crop=0.85, lr=1e-3),
        _closet("dino", "dino_small", side=192, smallest_crop=0.7, lr=4e-4),
        _mask_rcnn("t", 1, 0.472, 0.425),
        _mask_rcnn("t", 3, 0.491, 0.437),
        _mask_rcnn("s", 1, 0.478, 0.433),
        _mask_rcnn("s", 3, 0.497, 0.445),
        _mask_rcnn("b", 1, 0.488, 0.440),
        _mask_rcnn("b", 3, 0.503, 0.448),
        _recipe(
            "mask_rcnn_internimage_t_fpn_1x_coco_with_dcnv4",
            _model("mask_rcnn", "t", through_dcnv4=True),
            "1x",
            ONE,
        ),
        _cascade("l", 1, 0.549, 0.477),
        _cascade("l", 3, 0.561, 0.485),
        _cascade("xl", 1, 0.553, 0.481),
        _cascade("xl", 3, 0.562, 0.488),
        _recipe(
            "cascade_internimage_xl_fpn_3x_crowd_human",
            _model("cascade_rcnn", "xl"),
            "3x",
            THREE,
            metric="crowdhuman",
            weight_decay=1e-4,
            layer_decay=0.94,
        ),
        _dino("t", "layer_wise_lr", 0.539, model=dict(max_per_image=100), **_LAYER_WISE),
        _dino("l", "layer_wise_lr", 0.575, model={}, **_LAYER_WISE),
        _dino("l", "0.1x_backbone_lr", 0.576, model={}, rule="backbone"),
        *_LARGE,
        *_FLASH,
    )
}
