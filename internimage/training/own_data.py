"""What a run changes in its recipe to suit the data: a recipe is made for one data set, and most users have another.

Every change is logged in one line and stands in recipe.json; what the user has chosen (`Recipe.explicit`) stays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from internimage.recipe import Recipe
from internimage.settings import leaves, setting
from internimage.training.recipes import published_checkpoint

logger = logging.getLogger(__name__)
RecipeT = TypeVar("RecipeT", bound=Recipe)

# The smallest data set that a recipe was made for: the bundled detector and segmentor had 2,000 scenes.
SMALLEST_PUBLISHED_DATA = 2000
# A warm-up longer than this fraction of the run leaves too little of it at the full rate; the published runs that count
# epochs have a tenth at most.
LONGEST_WARMUP = 0.1
# With fewer steps an epoch, what does not fill a batch is too large a part of the data.
FEWEST_STEPS_PER_EPOCH = 4
LARGEST_HOLDOUT = 0.2
FINE_TUNING_VALIDATIONS = 10

# Settings that this module changes.
SUITED = frozenset(
    {
        *("model.start", "model.weights", "model.backbone_weights", "model.config.mask"),
        *("data.holdout", "data.batch_size", "ema.warmup", "run.precision"),
        *("schedule.epochs", "schedule.iterations", "schedule.validate_every", "schedule.warmup_epochs"),
        *("schedule.warmup_iterations", "schedule.steps"),
    }
)
_STARTS = ("model.weights", "model.backbone_weights", "model.architecture", "model.backbone")
# What may be chosen of the model's configuration and leaves it one for the published weights; of a section, all of it.
_HARMLESS = (
    *("model.config.preprocess.", "model.config.denoising.", "model.config.mask", "model.config.max_per_image"),
    *("model.config.backbone.in_chans", "model.config.backbone.drop", "model.config.feedforward_slices"),
    *("model.config.classifier_rows", "model.config.head.count_ignored_pixels"),
)
_LENGTHS = ("schedule.epochs", "schedule.iterations")


def is_made_for(recipe: Recipe, class_names: Sequence[str], images: int) -> bool:
    """Whether a recipe was made for a data set: its published model has the same classes, and there are enough images.

    Args:
        recipe: the recipe.
        class_names: classes of the data.
        images: number of training images.
    """
    entry = published_checkpoint(recipe.name)
    if entry is None or images < SMALLEST_PUBLISHED_DATA or entry.num_classes != len(class_names):
        return False
    names = entry.class_names
    return names is None or set(names) == set(class_names)


def _chooses_start(recipe: Recipe) -> bool:
    """Whether the user has chosen weights, or a model that the published weights are not for."""
    configured = (key for key in recipe.explicit if key.startswith("model.config."))
    return not recipe.explicit.isdisjoint(_STARTS) or any(not key.startswith(_HARMLESS) for key in configured)


def with_start(recipe: RecipeT, class_names: Sequence[str], images: int) -> RecipeT:
    """Return the recipe with its start decided (`model.start` becomes "recipe"), and the length of a fine-tuning.

    Args:
        recipe: the recipe; its setting `model.start` and a choice of weights by the user decide.
        class_names: classes of the data.
        images: number of training images.

    Raises:
        ValueError: the user asks for a published model that does not exist.
    """
    start, entry = recipe.model.start, published_checkpoint(recipe.name)
    is_published = start == "published"
    if is_published and entry is None:
        raise ValueError(f"no model of the recipe {recipe.name} is published; set model.weights to a name or a file")
    if start == "auto" and entry is not None and not _chooses_start(recipe):
        is_published = not is_made_for(recipe, class_names, images)
    changes: dict[str, object] = {"model.start": "recipe"}
    if not is_published or entry is None:
        is_own_choice = "model.weights" in recipe.explicit and setting(recipe, "model.weights") is not None
        recipe = recipe.with_values(changes)
        fine_tunes = is_own_choice and start == "auto" and not is_made_for(recipe, class_names, images)
        return _fine_tuning_length(recipe, images) if fine_tunes else recipe
    changes["model.weights"] = entry.name
    if "model.backbone_weights" in dict(leaves(recipe)):
        changes["model.backbone_weights"] = None
    logger.info(
        "fine-tunes the published model %s on this data; model.start=recipe trains as it was published", entry.name
    )
    return _fine_tuning_length(recipe.with_values(changes), images)


def _fine_tuning_length(recipe: RecipeT, images: int) -> RecipeT:
    """Shorten a run that starts from a published model, unless the user has chosen its length."""
    if not recipe.explicit.isdisjoint(_LENGTHS):
        return recipe
    epochs, most = setting(recipe, "schedule.epochs"), recipe.FINE_TUNING_EPOCHS
    if epochs:
        if epochs <= most:
            return recipe
        logger.info("trains %d epochs instead of %d (schedule.epochs)", most, epochs)
        return recipe.suited({"schedule.epochs": most, **recipe.implied({"schedule.epochs": most})})
    iterations, batch = setting(recipe, "schedule.iterations"), setting(recipe, "data.batch_size")
    if iterations * batch * recipe.optimizer.accumulation_steps <= most * images:
        return recipe
    logger.info("trains %d epochs instead of %d iterations (schedule.epochs)", most, iterations)
    changes = {"schedule.iterations": 0, "schedule.epochs": most, "schedule.steps": ()}
    return recipe.with_values({**changes, "schedule.validate_every": max(1, most // FINE_TUNING_VALIDATIONS)})


def wants_own_part(recipe: Recipe) -> bool:
    """Whether the user sets no training images aside, so that the data's own part is validated on, be it for tests."""
    return "data.holdout" in recipe.explicit and recipe.data.holdout == 0


def with_holdout(recipe: RecipeT, class_names: Sequence[str], images: int, *, has_val: bool) -> RecipeT:
    """Return the recipe with a `data.holdout` that suits the data.

    Own data is validated on its own validation part, or without one on a fifth of the training images at most.

    Args:
        recipe: the recipe.
        class_names: classes of the data.
        images: number of training images.
        has_val: whether the data has a validation part of its own.

    Raises:
        ValueError: the user has chosen a holdout that leaves nothing to learn from.
    """
    holdout = recipe.data.holdout
    if "data.holdout" in recipe.explicit:
        if holdout >= images:
            raise ValueError(f"data.holdout must be smaller than the {images} training images, given {holdout}")
        return recipe
    if has_val:
        if not holdout or is_made_for(recipe, class_names, images):
            return recipe
        logger.info("validates on the data's own validation part, not on %d training images (data.holdout)", holdout)
        return recipe.suited({"data.holdout": 0})
    most = max(1, round(LARGEST_HOLDOUT * images))
    if images < 2:
        raise ValueError(
            f"the data has no validation part and {images} training images, which cannot be divided; at least 2 are "
            "needed (data.holdout)"
        )
    chosen = min(holdout or most, most)
    if chosen != holdout:
        logger.info("validates on %d of the %d training images, which are set aside (data.holdout)", chosen, images)
    return recipe.suited({"data.holdout": chosen})


def with_batch(recipe: RecipeT, images: int) -> RecipeT:
    """Return the recipe with batches that a small data set fills several times.

    Args:
        recipe: the recipe.
        images: number of training images.
    """
    size, accumulation = setting(recipe, "data.batch_size"), recipe.optimizer.accumulation_steps
    if "data.batch_size" in recipe.explicit or images >= FEWEST_STEPS_PER_EPOCH * size * accumulation:
        return recipe
    smaller = max(min(images, 2), 2 ** max(0, (images // FEWEST_STEPS_PER_EPOCH).bit_length() - 1))
    if smaller >= size:
        return recipe
    logger.info("takes %d images a batch instead of %d, because there are %d (data.batch_size)", smaller, size, images)
    return recipe.suited({"data.batch_size": smaller})


def with_short_warmup(recipe: RecipeT, *, total_steps: int, steps_per_epoch: int) -> RecipeT:
    """Return the recipe with a warm-up, and a running average, that fit into its run.

    Args:
        recipe: the recipe.
        total_steps: steps of the run.
        steps_per_epoch: steps of an epoch.
    """
    key, unit = recipe.WARMUP, recipe.warmup_unit(steps_per_epoch)
    warmup, most = round(setting(recipe, key) * unit), int(LONGEST_WARMUP * total_steps)
    if warmup > most and key not in recipe.explicit:
        logger.info("warms up for %d instead of %d of the %d steps (%s)", most, warmup, total_steps, key)
        recipe = recipe.suited({key: most / unit if unit > 1 else most})
    average = recipe.ema
    if average.decay and not average.warmup and not average.follow_steps and (1 - average.decay) * total_steps < 2:
        logger.info("averages the weights of the last steps only, because the run is short (ema.warmup)")
        recipe = recipe.suited({"ema.warmup": True})
    return recipe


def as_started(recipe: RecipeT, own: Recipe) -> RecipeT:
    """Return the recipe of a run that goes on: suited to its data as it was when the run started, and not again.

    Args:
        recipe: what the user asks for now.
        own: what the run has.
    """
    names, started = dict(leaves(recipe)), dict(leaves(own))
    kept = {key: started[key] for key in names if key in SUITED and key in started and key not in recipe.explicit}
    return recipe.with_values({**kept, "explicit": frozenset({*names, *recipe.CHOICES})})
