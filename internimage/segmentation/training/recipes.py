"""The recipes of segmentors: the published runs by the names of their configurations, and small ones.

Sources: the segmentation configurations of the InternImage and FlashInternImage releases. Each was made with eight
devices (upernet_..._h_896 and mask2former_..._2ade20k with 16). The runs of Mapillary validated on Cityscapes in the
original. The two cocostuff2ade20k differ only in how the finished model is tested: at one scale or at several.
"""

from __future__ import annotations

from dataclasses import replace

from internimage.backbones.names import below_head
from internimage.checkpoints.catalog import trained_config
from internimage.recipe import (
    EmaSettings,
    RunSettings,
    SceneModelSettings,
    SceneScheduleSettings,
    starting_from,
)
from internimage.recipe.recipe import CONFIG
from internimage.segmentation.batches.augment import PUBLISHED, Augmentation
from internimage.segmentation.config import HEADS
from internimage.segmentation.model import SegmentorConfig
from internimage.segmentation.preprocess import SegmentationPreprocess
from internimage.segmentation.published import published_config
from internimage.segmentation.training.recipe import (
    SegmentationDataSettings,
    SegmentationOptimizerSettings,
    SegmentationRecipe,
)
from internimage.settings import replaced

PLAIN = SegmentationOptimizerSettings(lr=6e-5)
BY_LAYERS = SegmentationOptimizerSettings(lr=2e-5, layer_decay=0.94, clip_norm=0.1)
MASK_H = SegmentationOptimizerSettings(lr=2e-5, layer_decay=0.95, slow_mask_embeddings=True)
FLASH_MASKS = SegmentationOptimizerSettings(clip_norm=0.1, slow_mask_embeddings=True)


def _poly(iterations: int, *, validate_every: int) -> SceneScheduleSettings:
    """A rate that falls in a straight line to zero, under a warm-up of 1,500 steps."""
    return SceneScheduleSettings(
        kind="poly",
        epochs=0,
        iterations=iterations,
        steps=(),
        warmup_iterations=1500,
        warmup_ratio=1e-6,
        validate_every=validate_every,
    )


def _run(
    name: str,
    drop_path_rate: float,
    start: str,
    augment: Augmentation,
    optimizer: SegmentationOptimizerSettings,
    schedule: SceneScheduleSettings,
    *,
    starts_whole: bool = False,
    reset_head: bool = False,
    checkpointing: bool = False,
    batch_size: int = 2,
    train_split: str = "train",
) -> SegmentationRecipe:
    """A published run, from a backbone or from a whole model."""
    config = trained_config(name, published_config, drop_path_rate=drop_path_rate)
    return SegmentationRecipe(
        name=name,
        model=starting_from(start, config, whole=starts_whole, reset_head=reset_head, checkpointing=checkpointing),
        data=SegmentationDataSettings(batch_size=batch_size, train_split=train_split),
        augment=augment,
        optimizer=optimizer,
        schedule=schedule,
    )


def _closet_augment(side: int) -> Augmentation:
    """Square crops as large as the scenes, which keep their colors."""
    square = (side, side)
    return Augmentation(crop_hw=square, scale=square, ratio_range=(1.0, 1.0), category_limit=1.0, photometric=None)


_CLOSET_UPERNET = SegmentationRecipe(
    name="upernet_internimage_pico_closet",
    model=SceneModelSettings(
        SegmentorConfig(
            below_head("internimage_pico"),
            11,
            head=HEADS["upernet_small"],
            preprocess=SegmentationPreprocess(scale=(288, 288), multiple=32),
        ),
        backbone_weights="internimage_pico_fashion",
    ),
    data=SegmentationDataSettings(batch_size=8, val_batch_size=8, workers=0),
    augment=_closet_augment(288),
    optimizer=SegmentationOptimizerSettings(clip_norm=1.0, lr=0.001),
    schedule=SceneScheduleSettings(epochs=8, kind="poly", steps=(), warmup_iterations=200, warmup_ratio=0.01),
    ema=EmaSettings(decay=0.998, warmup=True),
    run=RunSettings(precision="auto"),
)
_CLOSET_MASK2FORMER = replaced(
    _CLOSET_UPERNET,
    {
        "name": "mask2former_internimage_pico_closet",
        f"{CONFIG}.head": HEADS["mask2former_small"],
        f"{CONFIG}.preprocess.scale": (192, 192),
        "augment": _closet_augment(192),
        "optimizer.lr": 4e-4,
    },
)
# fmt: off
# Runs that others differ from in little.
_STUFF_TO_ADE = _run("mask2former_internimage_h_896_80k_cocostuff2ade20k_ss", 0.5,
     "mask2former_internimage_h_896_80k_cocostuff164k", PUBLISHED["ade20k_896x896"],
     replace(MASK_H, lr=1e-5, clip_norm=0.1), _poly(80_000, validate_every=2_000), starts_whole=True,
     reset_head=True, checkpointing=True, batch_size=1)
_FLASH_MASK_S = _run("mask2former_flash_internimage_s_640_160k_ade20k_ss", 0.3, "flash_intern_image_s_1k_224",
     PUBLISHED["ade20k_640x640"], FLASH_MASKS, _poly(160_000, validate_every=5_000), checkpointing=True)
_PUBLISHED = (
    _run("upernet_internimage_t_512_160k_ade20k", 0.2, "internimage_t_1k_224", PUBLISHED["ade20k_512x512"], PLAIN,
         _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_s_512_160k_ade20k", 0.3, "internimage_s_1k_224", PUBLISHED["ade20k_512x512"], PLAIN,
         _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_b_512_160k_ade20k", 0.4, "internimage_b_1k_224", PUBLISHED["ade20k_512x512"], PLAIN,
         _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_l_640_160k_ade20k", 0.4, "internimage_l_22k_192to384", PUBLISHED["ade20k_640x640"],
         BY_LAYERS, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_xl_640_160k_ade20k", 0.4, "internimage_xl_22k_192to384", PUBLISHED["ade20k_640x640"],
         BY_LAYERS, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_h_896_160k_ade20k", 0.5, "internimage_h_jointto22k_384", PUBLISHED["ade20k_896x896"],
         replace(BY_LAYERS, layer_decay=0.95), _poly(160_000, validate_every=16_000), checkpointing=True, batch_size=1),
    _run("upernet_internimage_g_896_160k_ade20k", 0.5, "internimage_g_pretrainto22k_384", PUBLISHED["ade20k_896x896"],
         replace(BY_LAYERS, layer_decay=0.95), _poly(160_000, validate_every=16_000), checkpointing=True, batch_size=1),
    _run("upernet_internimage_t_512x1024_160k_cityscapes", 0.2, "internimage_t_1k_224",
         PUBLISHED["cityscapes_512x1024"], PLAIN, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_s_512x1024_160k_cityscapes", 0.3, "internimage_s_1k_224",
         PUBLISHED["cityscapes_512x1024"], PLAIN, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_b_512x1024_160k_cityscapes", 0.4, "internimage_b_1k_224",
         PUBLISHED["cityscapes_512x1024"], PLAIN, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_l_512x1024_160k_cityscapes", 0.4, "internimage_l_22k_192to384",
         PUBLISHED["cityscapes_512x1024"], BY_LAYERS, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_xl_512x1024_160k_cityscapes", 0.4, "internimage_xl_22k_192to384",
         PUBLISHED["cityscapes_512x1024"], BY_LAYERS, _poly(160_000, validate_every=16_000)),
    _run("upernet_internimage_l_512x1024_160k_mapillary2cityscapes", 0.4,
         "segformer_internimage_l_512x1024_80k_mapillary", PUBLISHED["cityscapes_512x1024"], BY_LAYERS,
         _poly(160_000, validate_every=4_000), train_split="train+train_extra"),
    _run("upernet_internimage_xl_512x1024_160k_mapillary2cityscapes", 0.4,
         "segformer_internimage_xl_512x1024_80k_mapillary", PUBLISHED["cityscapes_512x1024"], BY_LAYERS,
         _poly(160_000, validate_every=4_000), train_split="train+train_extra"),
    _run("segformer_internimage_l_512x1024_160k_mapillary2cityscapes", 0.4,
         "segformer_internimage_l_512x1024_80k_mapillary", PUBLISHED["cityscapes_512x1024"], BY_LAYERS,
         _poly(160_000, validate_every=4_000), starts_whole=True, train_split="train+train_extra"),
    _run("segformer_internimage_xl_512x1024_160k_mapillary2cityscapes", 0.4,
         "segformer_internimage_xl_512x1024_80k_mapillary", PUBLISHED["cityscapes_512x1024"], BY_LAYERS,
         _poly(160_000, validate_every=4_000), starts_whole=True, train_split="train+train_extra"),
    _run("upernet_internimage_l_512x1024_80k_mapillary", 0.4, "internimage_l_22k_192to384",
         PUBLISHED["mapillary_512x1024"], BY_LAYERS, _poly(80_000, validate_every=8_000), train_split="train+val"),
    _run("upernet_internimage_xl_512x1024_80k_mapillary", 0.4, "internimage_xl_22k_192to384",
         PUBLISHED["mapillary_512x1024"], BY_LAYERS, _poly(80_000, validate_every=8_000), train_split="train+val"),
    _run("segformer_internimage_l_512x1024_80k_mapillary", 0.4, "internimage_l_22k_192to384",
         PUBLISHED["mapillary_512x1024"], BY_LAYERS, _poly(80_000, validate_every=8_000), train_split="train+val"),
    _run("segformer_internimage_xl_512x1024_80k_mapillary", 0.4, "internimage_xl_22k_192to384",
         PUBLISHED["mapillary_512x1024"], BY_LAYERS, _poly(80_000, validate_every=8_000), train_split="train+val"),
    _STUFF_TO_ADE,
    replace(_STUFF_TO_ADE, name="mask2former_internimage_h_896_80k_cocostuff2ade20k_ms"),
    _run("mask2former_internimage_h_896_80k_cocostuff164k", 0.5, "internimage_h_jointto22k_384",
         PUBLISHED["coco_stuff_164k_896x896"], MASK_H, _poly(80_000, validate_every=8_000), checkpointing=True,
         batch_size=1),
    _run("mask2former_internimage_h_512_40k_cocostuff164k_to_10k", 0.5,
         "mask2former_internimage_h_896_80k_cocostuff164k", PUBLISHED["coco_stuff_10k_512x512"],
         replace(MASK_H, lr=1e-5), _poly(40_000, validate_every=2_000), starts_whole=True, checkpointing=True,
         batch_size=1),
    _run("mask2former_internimage_h_480_40k_pascal_context_59", 0.5, "internimage_h_jointto22k_384",
         PUBLISHED["pascal_context_480x480"], MASK_H, _poly(40_000, validate_every=2_000), checkpointing=True,
         batch_size=1),
    _run("mask2former_internimage_h_480_40k_nyu", 0.5, "internimage_h_jointto22k_384", PUBLISHED["nyu_480x480"], MASK_H,
         _poly(40_000, validate_every=2_000), checkpointing=True, batch_size=1),
    _run("mask2former_internimage_h_896x896_80k_mapillary", 0.5, "internimage_h_jointto22k_384",
         PUBLISHED["mapillary_896x896"], replace(MASK_H, clip_norm=0.1), _poly(80_000, validate_every=2_000),
         checkpointing=True),
    _run("mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes", 0.5,
         "mask2former_internimage_h_896x896_80k_mapillary", PUBLISHED["cityscapes_1024x1024"],
         replace(MASK_H, lr=1e-5, clip_norm=0.1), _poly(80_000, validate_every=2_000), starts_whole=True,
         checkpointing=True),
    _run("upernet_flash_internimage_t_512_160k_ade20k", 0.2, "flash_intern_image_t_1k_224", PUBLISHED["ade20k_512x512"],
         PLAIN, _poly(160_000, validate_every=16_000), checkpointing=True),
    _run("upernet_flash_internimage_s_512_160k_ade20k", 0.3, "flash_intern_image_s_1k_224", PUBLISHED["ade20k_512x512"],
         PLAIN, _poly(160_000, validate_every=16_000), checkpointing=True),
    _run("upernet_flash_internimage_b_512_160k_ade20k", 0.3, "flash_intern_image_b_1k_224", PUBLISHED["ade20k_512x512"],
         PLAIN, _poly(160_000, validate_every=16_000), checkpointing=True),
    _run("upernet_flash_internimage_l_640_160k_ade20k", 0.4, "flash_intern_image_l_22k_384",
         PUBLISHED["ade20k_640x640"], BY_LAYERS, _poly(160_000, validate_every=16_000), checkpointing=True),
    _run("mask2former_flash_internimage_t_512_160k_ade20k_ss", 0.2, "flash_intern_image_t_1k_224",
         PUBLISHED["ade20k_512x512"], replace(FLASH_MASKS, layer_decay=0.9, clip_norm=0.01),
         _poly(160_000, validate_every=5_000), checkpointing=True),
    _FLASH_MASK_S,
    replaced(_FLASH_MASK_S, {"name": f"{_FLASH_MASK_S.name}_nsmx", f"{CONFIG}.head.encoder_softmax": False}),
    _run("mask2former_flash_internimage_b_640_160k_ade20k_ss", 0.4, "flash_intern_image_b_1k_224",
         PUBLISHED["ade20k_640x640"], FLASH_MASKS, _poly(160_000, validate_every=5_000), checkpointing=True),
    _run("mask2former_flash_internimage_l_640_160k_ade20k_ss", 0.5, "flash_intern_image_l_22k_384",
         PUBLISHED["ade20k_640x640"], replace(FLASH_MASKS, layer_decay=0.94), _poly(160_000, validate_every=2_000),
         checkpointing=True),
)
# fmt: on

RECIPES: dict[str, SegmentationRecipe] = {
    recipe.name: recipe for recipe in (_CLOSET_UPERNET, _CLOSET_MASK2FORMER, *_PUBLISHED)
}
