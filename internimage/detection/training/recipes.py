"""The recipes of detectors: the published runs by the names of their configurations, and small ones.

Sources: the detection configurations of the InternImage and FlashInternImage releases. R-CNNs were published with 16
images in a step (64 for three-fold cascades); the largest ones ran on eight devices at a constant rate after the
warm-up. The Objects365 weights that the two of them on a single backbone started from were not published.
"""

from __future__ import annotations

from dataclasses import replace

from internimage.backbones.names import THROUGH_DCNV4, below_head
from internimage.checkpoints.catalog import trained_config
from internimage.detection.config import DINOConfig
from internimage.detection.preprocess import DetectionPreprocess
from internimage.detection.presets import dino_small, mask_rcnn_small
from internimage.detection.published import published_config
from internimage.detection.training.recipe import (
    DetectionAugmentSettings,
    DetectionDataSettings,
    DetectionOptimizerSettings,
    DetectionRecipe,
)
from internimage.evaluation.object_metrics import Metric
from internimage.recipe import (
    EmaSettings,
    RunSettings,
    SceneModelSettings,
    SceneScheduleSettings,
    starting_from,
)
from internimage.recipe.recipe import CONFIG
from internimage.settings import replaced

THREE, DINO_ONE = SceneScheduleSettings(epochs=36, steps=(27, 33)), SceneScheduleSettings(steps=(11,))
# The average that follows the weights at first, see `EmaSettings`.
FOLLOWING, NO_EMA = EmaSettings(decay=0.9999, follow_steps=2000), EmaSettings(decay=0.0)
_80_CLASSES = "dino_4scale_cbinternimage_h_objects365_80classes"
_20_CLASSES = "dino_4scale_cbinternimage_h_objects365_20classes"

CASCADE = DetectionOptimizerSettings(layer_decay=0.94)
SLOW_OFFSETS = DetectionOptimizerSettings(lr=2e-4, layer_decay=0.9, offset_lr_multiplier=0.01)
DINO_LAYERS = DetectionOptimizerSettings(weight_decay=1e-4, layer_decay=0.9, clip_norm=0.1)
DINO_BACKBONE = DetectionOptimizerSettings(rule="backbone", clip_norm=0.1)
FLASH_DINO = replace(DINO_LAYERS, lr=2e-4)
LARGE_DINO = DetectionOptimizerSettings(
    weight_decay=1e-4, layer_decay=0.94, offset_lr_multiplier=0.001, clip_norm=0.1, composite_layer_decay=False
)


def _run(
    name: str,
    drop_path_rate: float,
    start: str | None,
    pipeline: str,
    optimizer: DetectionOptimizerSettings | None = None,
    *,
    schedule: SceneScheduleSettings | None = None,
    batch_size: int = 2,
    metric: Metric = "coco",
    balance_threshold: float = 0.0,
    reset_head: bool = False,
    checkpointing: bool = False,
    ema: EmaSettings = NO_EMA,
) -> DetectionRecipe:
    """A published run; composites start from whole models, the others from the backbones of classifiers."""
    config = trained_config(name, published_config, drop_path_rate=drop_path_rate)
    is_whole = isinstance(config, DINOConfig) and config.num_backbones > 1
    return DetectionRecipe(
        name=name,
        model=starting_from(start, config, whole=is_whole, reset_head=reset_head, checkpointing=checkpointing),
        data=DetectionDataSettings(batch_size=batch_size, metric=metric, balance_threshold=balance_threshold),
        augment=DetectionAugmentSettings(pipeline),
        optimizer=optimizer or DetectionOptimizerSettings(),
        schedule=schedule or SceneScheduleSettings(),
        ema=ema,
    )


def _constant(iterations: int, *, validate_every: int) -> SceneScheduleSettings:
    """The same rate for a number of steps, after the warm-up."""
    return SceneScheduleSettings(epochs=0, iterations=iterations, steps=(), validate_every=validate_every)


_CLOSET_MASKS = DetectionRecipe(
    name="mask_rcnn_internimage_pico_closet",
    model=SceneModelSettings(
        replace(
            mask_rcnn_small(below_head("internimage_pico"), 10),
            preprocess=DetectionPreprocess(longer_side=288, shorter_side=288),
        ),
        backbone_weights="internimage_pico_fashion",
    ),
    data=DetectionDataSettings(batch_size=8, val_batch_size=8, workers=0),
    augment=DetectionAugmentSettings(longer_side=288, pipeline="own", shorter_side=(288, 288), smallest_crop=0.85),
    optimizer=DetectionOptimizerSettings(clip_norm=1.0, layer_decay=0.9, lr=0.001),
    schedule=SceneScheduleSettings(
        epochs=24, kind="poly", steps=(), validate_every=2, warmup_iterations=200, warmup_ratio=0.01
    ),
    ema=EmaSettings(decay=0.998, warmup=True),
    run=RunSettings(precision="auto"),
)
_CLOSET_DINO = replaced(
    _CLOSET_MASKS,
    {
        "name": "dino_internimage_pico_closet",
        CONFIG: replace(
            dino_small(below_head("internimage_pico"), 10),
            preprocess=DetectionPreprocess(longer_side=192, shorter_side=192),
        ),
        "augment": DetectionAugmentSettings(
            longer_side=192, pipeline="own", shorter_side=(192, 192), smallest_crop=0.7
        ),
        "optimizer.lr": 4e-4,
    },
)
# fmt: off
# Runs that others differ from in little.
_MASK_T = _run("mask_rcnn_internimage_t_fpn_1x_coco", 0.2, "internimage_t_1k_224", "1x")
_LVIS = _run("dino_4scale_cbinternimage_h_objects365_lvis_val_ss", 0.5, _80_CLASSES, "large_1200", LARGE_DINO,
     schedule=_constant(80_000, validate_every=500), balance_threshold=0.001, batch_size=1, metric="lvis",
     reset_head=True, checkpointing=True)
_VOC = _run("dino_4scale_cbinternimage_h_objects365_voc07", 0.5, _20_CLASSES, "voc", replace(LARGE_DINO, lr=5e-5),
     schedule=_constant(20_000, validate_every=500), batch_size=1, metric="voc2007", checkpointing=True)
_PUBLISHED = (
    _MASK_T,
    _run("mask_rcnn_internimage_t_fpn_3x_coco", 0.2, "internimage_t_1k_224", "3x", schedule=THREE),
    _run("mask_rcnn_internimage_s_fpn_1x_coco", 0.3, "internimage_s_1k_224", "1x"),
    _run("mask_rcnn_internimage_s_fpn_3x_coco", 0.3, "internimage_s_1k_224", "3x", schedule=THREE),
    _run("mask_rcnn_internimage_b_fpn_1x_coco", 0.4, "internimage_b_1k_224", "1x"),
    _run("mask_rcnn_internimage_b_fpn_3x_coco", 0.4, "internimage_b_1k_224", "3x", schedule=THREE),
    replaced(_MASK_T, {"name": f"{_MASK_T.name}_with_dcnv4", f"{CONFIG}.backbone.operator": THROUGH_DCNV4}),
    _run("cascade_internimage_l_fpn_1x_coco", 0.4, "internimage_l_22k_192to384", "1x", CASCADE),
    _run("cascade_internimage_l_fpn_3x_coco", 0.4, "internimage_l_22k_192to384", "3x", SLOW_OFFSETS, schedule=THREE,
         ema=FOLLOWING),
    _run("cascade_internimage_xl_fpn_1x_coco", 0.4, "internimage_xl_22k_192to384", "1x", CASCADE),
    _run("cascade_internimage_xl_fpn_3x_coco", 0.6, "internimage_xl_22k_192to384", "3x", SLOW_OFFSETS, schedule=THREE,
         ema=FOLLOWING),
    _run("cascade_internimage_xl_fpn_3x_crowd_human", 0.4, "internimage_xl_22k_192to384", "3x",
         DetectionOptimizerSettings(layer_decay=0.94, weight_decay=1e-4), schedule=THREE, metric="crowdhuman"),
    _run("dino_4scale_internimage_t_1x_coco_layer_wise_lr", 0.2, "internimage_t_1k_224", "dino_1x", DINO_LAYERS,
         schedule=DINO_ONE),
    _run("dino_4scale_internimage_l_1x_coco_layer_wise_lr", 0.4, "internimage_l_22k_192to384", "dino_1x", DINO_LAYERS,
         schedule=DINO_ONE),
    _run("dino_4scale_internimage_l_1x_coco_0.1x_backbone_lr", 0.4, "internimage_l_22k_192to384", "dino_1x",
         DINO_BACKBONE, schedule=DINO_ONE),
    _run("dino_4scale_internimage_h_objects365_coco_ss", 0.5, None, "large_1800", LARGE_DINO,
         schedule=_constant(20_000, validate_every=200), batch_size=1, checkpointing=True),
    _run("dino_4scale_internimage_g_objects365_coco_ss", 0.5, None, "large_1800", LARGE_DINO,
         schedule=_constant(20_000, validate_every=200), batch_size=1, checkpointing=True),
    _run("dino_4scale_cbinternimage_h_objects365_coco_ss", 0.5, _80_CLASSES, "large_1800", LARGE_DINO,
         schedule=_constant(20_000, validate_every=200), batch_size=1, checkpointing=True),
    replace(_LVIS, name="dino_4scale_cbinternimage_h_objects365_lvis_minival_ss"),
    _LVIS,
    _run("dino_4scale_cbinternimage_h_objects365_openimages_ss", 0.5, _80_CLASSES, "large_1200", LARGE_DINO,
         schedule=_constant(100_000, validate_every=2_000), batch_size=1, metric="openimages", reset_head=True,
         checkpointing=True),
    _VOC,
    replaced(_VOC, {"name": "dino_4scale_cbinternimage_h_objects365_voc12", "data.metric": "voc2012"}),
    _run("mask_rcnn_flash_intern_image_t_fpn_1x_coco", 0.2, "flash_intern_image_t_1k_224", "1x", checkpointing=True),
    _run("mask_rcnn_flash_intern_image_t_fpn_3x_coco", 0.2, "flash_intern_image_t_1k_224", "3x", schedule=THREE,
         checkpointing=True),
    _run("mask_rcnn_flash_intern_image_s_fpn_1x_coco", 0.3, "flash_intern_image_s_1k_224", "1x", checkpointing=True),
    _run("mask_rcnn_flash_intern_image_s_fpn_3x_coco", 0.4, "flash_intern_image_s_1k_224", "3x",
         DetectionOptimizerSettings(lr=2e-4), schedule=THREE, batch_size=8, checkpointing=True),
    _run("mask_rcnn_flash_intern_image_b_fpn_1x_coco", 0.3, "flash_intern_image_b_1k_224", "1x", checkpointing=True),
    _run("mask_rcnn_flash_intern_image_b_fpn_3x_coco", 0.4, "flash_intern_image_b_1k_224", "3x", SLOW_OFFSETS,
         schedule=THREE, batch_size=4, checkpointing=True),
    _run("cascade_flash_intern_image_l_fpn_1x_coco", 0.4, "flash_intern_image_l_22k_384", "1x", CASCADE,
         checkpointing=True),
    _run("cascade_flash_intern_image_l_fpn_3x_coco", 0.4, "flash_intern_image_l_22k_384", "3x", SLOW_OFFSETS,
         schedule=THREE, batch_size=4, checkpointing=True, ema=FOLLOWING),
    _run("dino_4scale_flash_internimage_t_1x_coco", 0.2, "flash_intern_image_t_1k_224", "dino_1x", FLASH_DINO,
         schedule=DINO_ONE, batch_size=4, checkpointing=True),
    _run("dino_4scale_flash_internimage_s_1x_coco", 0.3, "flash_intern_image_s_1k_224", "dino_1x", FLASH_DINO,
         schedule=DINO_ONE, batch_size=4, checkpointing=True),
    _run("dino_4scale_flash_internimage_b_1x_coco", 0.3, "flash_intern_image_b_1k_224", "dino_1x", FLASH_DINO,
         schedule=DINO_ONE, batch_size=4, checkpointing=True),
    _run("dino_4scale_flash_internimage_l_1x_coco", 0.4, "flash_intern_image_l_22k_384", "dino_1x", DINO_BACKBONE,
         schedule=DINO_ONE, checkpointing=True),
)
# fmt: on

RECIPES: dict[str, DetectionRecipe] = {recipe.name: recipe for recipe in (_CLOSET_MASKS, _CLOSET_DINO, *_PUBLISHED)}
