"""The recipes of classifiers: the published classification runs, and the small one of the bundled model.

Sources: the classification configurations of the InternImage release (effective values, see docs/training.md).
"""

from __future__ import annotations

from dataclasses import replace

from internimage.backbones import variant
from internimage.classification.head import HeadKind
from internimage.classification.model import ClassifierConfig
from internimage.classification.preprocess import PreprocessConfig
from internimage.classification.training.recipe import (
    AugmentSettings,
    ClassificationDataSettings,
    ClassificationRecipe,
    EpochScheduleSettings,
    ScaledOptimizerSettings,
)
from internimage.recipe import EmaSettings, ModelSettings, RunSettings


def _classifier(
    size: str, drop_path_rate: float, *, pixels: int = 224, head: HeadKind = "conv", classes: int = 1000
) -> ClassifierConfig:
    backbone = replace(variant(size), drop_path_rate=drop_path_rate)
    return ClassifierConfig(backbone, classes, head, PreprocessConfig(size=pixels))


def _from_scratch(size: str, drop_path_rate: float) -> ClassificationRecipe:
    """300 epochs of ImageNet-1k at 224 pixels; published with 4096 images in a step."""
    config = _classifier(f"internimage_{size}", drop_path_rate)
    return ClassificationRecipe(name=f"internimage_{size}_1k_224", model=ModelSettings(config))


_FINE_TUNE_AUGMENT = AugmentSettings(mixup=0.0, cutmix=0.0, erase_probability=0.0)
_FINE_TUNE = ScaledOptimizerSettings(lr_per_512=2e-5, warmup_lr_per_512=0.0, min_lr_per_512=0.0)


def _fine_tune(
    size: str, pixels: int, batch_size: int, drop_path_rate: float, weights: str, head: HeadKind = "conv"
) -> ClassificationRecipe:
    """20 epochs of ImageNet-1k from ImageNet-22k weights; published with 512 images in a step."""
    config = _classifier(f"internimage_{size}", drop_path_rate, pixels=pixels, head=head)
    return ClassificationRecipe(
        name=f"internimage_{size}_22kto1k_{pixels}",
        model=ModelSettings(config, weights, activation_checkpointing=True),
        data=ClassificationDataSettings(batch_size=batch_size),
        augment=_FINE_TUNE_AUGMENT,
        optimizer=replace(_FINE_TUNE, layer_decay=0.9, dcn_lr_multiplier=0.1),
        schedule=EpochScheduleSettings(epochs=20, warmup_epochs=2),
        label_smoothing=0.3,
    )


_INATURALIST = ClassificationRecipe(
    name="internimage_h_22ktoinat18_384",
    model=ModelSettings(
        _classifier("internimage_h", 0.6, pixels=384, head="attention_pool_metadata", classes=8142),
        "internimage_h_jointto22k_384",
        reset_head=True,
        activation_checkpointing=True,
    ),
    augment=_FINE_TUNE_AUGMENT,
    optimizer=_FINE_TUNE,
    schedule=EpochScheduleSettings(epochs=100, warmup_epochs=0),
    ema=EmaSettings(decay=0.0),
    label_smoothing=0.3,
)

_PICO_FASHION = ClassificationRecipe(
    name="internimage_pico_fashion",
    model=ModelSettings(_classifier("internimage_pico", 0.05, pixels=64, classes=10)),
    data=ClassificationDataSettings(workers=0, holdout=2000),
    augment=AugmentSettings(
        kind="shift", shift_pixels=4, rand_augment="", erase_probability=0.15, mixup=0.0, cutmix=0.0
    ),
    optimizer=ScaledOptimizerSettings(lr_per_512=8e-3, warmup_lr_per_512=4e-4, min_lr_per_512=4e-5, clip_norm=1.0),
    schedule=EpochScheduleSettings(epochs=24, warmup_epochs=1),
    ema=EmaSettings(decay=0.998, warmup=True),
    run=RunSettings(precision="auto"),
)
_PICO = _classifier("internimage_pico", 0.0, pixels=64, classes=10)

# Goes on where the first run stopped, with weaker variation: that run still learned when its rate ran out.
_PICO_FASHION_SECOND = replace(
    _PICO_FASHION,
    name="internimage_pico_fashion_second",
    model=ModelSettings(_PICO, "internimage_pico_fashion"),
    augment=replace(_PICO_FASHION.augment, shift_pixels=3, erase_probability=0.1),
    optimizer=replace(_PICO_FASHION.optimizer, lr_per_512=5e-3),
)

# Garments among other things (`examples/make_closet.py --crops`): the closet's detectors and segmentors start from it.
_PICO_CLOSET = replace(
    _PICO_FASHION,
    name="internimage_pico_closet_crops",
    model=ModelSettings(_PICO, "internimage_pico_fashion", reset_head=True),
    data=replace(_PICO_FASHION.data, holdout=0),
    schedule=EpochScheduleSettings(epochs=10, warmup_epochs=1),
)

RECIPES: dict[str, ClassificationRecipe] = {
    recipe.name: recipe
    for recipe in (
        _PICO_FASHION,
        _PICO_FASHION_SECOND,
        _PICO_CLOSET,
        _from_scratch("t", 0.1),
        _from_scratch("s", 0.4),
        _from_scratch("b", 0.5),
        _fine_tune("l", 384, 16, 0.1, "internimage_l_22k_192to384"),
        _fine_tune("xl", 384, 16, 0.2, "internimage_xl_22k_192to384"),
        _fine_tune("h", 640, 16, 0.2, "internimage_h_jointto22k_384", "attention_pool"),
        _fine_tune("g", 512, 8, 0.4, "internimage_g_pretrainto22k_384", "attention_pool"),
        _INATURALIST,
    )
}
