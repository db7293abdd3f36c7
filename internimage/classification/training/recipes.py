"""The recipes of classifiers: the published classification runs, and the small one of the bundled model.

Sources: the classification configurations of the InternImage release (effective values, see docs/training.md).
"""

from __future__ import annotations

from dataclasses import replace

from internimage.checkpoints.catalog import trained_config
from internimage.classification.published import published_config
from internimage.classification.training.recipe import (
    AugmentSettings,
    ClassificationDataSettings,
    ClassificationRecipe,
    EpochScheduleSettings,
    ScaledOptimizerSettings,
)
from internimage.recipe import EmaSettings, ModelSettings, RunSettings


def _from_scratch(name: str, drop_path_rate: float) -> ClassificationRecipe:
    """300 epochs of ImageNet-1k at 224 pixels; published with 4096 images in a step."""
    config = trained_config(name, published_config, drop_path_rate=drop_path_rate)
    return ClassificationRecipe(name=name, model=ModelSettings(config))


_FINE_TUNE_AUGMENT = AugmentSettings(mixup=0.0, cutmix=0.0, erase_probability=0.0)
_FINE_TUNE = ScaledOptimizerSettings(lr_per_512=2e-5, warmup_lr_per_512=0.0, min_lr_per_512=0.0)


def _fine_tune(name: str, batch_size: int, drop_path_rate: float, weights: str) -> ClassificationRecipe:
    """20 epochs of ImageNet-1k from ImageNet-22k weights; published with 512 images in a step."""
    config = trained_config(name, published_config, drop_path_rate=drop_path_rate)
    return ClassificationRecipe(
        name=name,
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
        trained_config("internimage_h_22ktoinat18_384", published_config, drop_path_rate=0.6),
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
    model=ModelSettings(trained_config("internimage_pico_fashion", published_config, drop_path_rate=0.05)),
    data=ClassificationDataSettings(workers=0, holdout=2000),
    augment=AugmentSettings(
        kind="shift", shift_pixels=4, rand_augment="", erase_probability=0.15, mixup=0.0, cutmix=0.0
    ),
    optimizer=ScaledOptimizerSettings(lr_per_512=8e-3, warmup_lr_per_512=4e-4, min_lr_per_512=4e-5, clip_norm=1.0),
    schedule=EpochScheduleSettings(epochs=24, warmup_epochs=1),
    ema=EmaSettings(decay=0.998, warmup=True),
    run=RunSettings(precision="auto"),
)
_PICO = published_config("internimage_pico_fashion")

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
        _from_scratch("internimage_t_1k_224", 0.1),
        _from_scratch("internimage_s_1k_224", 0.4),
        _from_scratch("internimage_b_1k_224", 0.5),
        _fine_tune("internimage_l_22kto1k_384", 16, 0.1, "internimage_l_22k_192to384"),
        _fine_tune("internimage_xl_22kto1k_384", 16, 0.2, "internimage_xl_22k_192to384"),
        _fine_tune("internimage_h_22kto1k_640", 16, 0.2, "internimage_h_jointto22k_384"),
        _fine_tune("internimage_g_22kto1k_512", 8, 0.4, "internimage_g_pretrainto22k_384"),
        _INATURALIST,
    )
}
