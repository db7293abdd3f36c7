"""A training recipe: every setting of a run, typed, with `section.key=value` overrides."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from internimage.classification.head import HeadKind
from internimage.errors import UnknownName


@dataclass(frozen=True)
class ModelSettings:
    """What is trained.

    Args:
        backbone: a size of `internimage.backbones.VARIANTS`.
        head: "conv", "attention_pool" or "attention_pool_metadata".
        drop_path_rate: stochastic depth of the last block, 0..1.
        weights: catalog name or file to start from, None for a random start.
        reset_head: start with a new head; needed where the weights have another number of classes.
        activation_checkpointing: recompute blocks in the backward pass, which saves memory.
        frozen_stages: -1 trains everything; k >= 0 freezes the stem and the first k levels.
        backend: operator backend.
    """

    backbone: str
    head: HeadKind = "conv"
    drop_path_rate: float = 0.1
    weights: str | None = None
    reset_head: bool = False
    activation_checkpointing: bool = False
    frozen_stages: int = -1
    backend: str = "auto"


@dataclass(frozen=True)
class DataSettings:
    """How the data set is read.

    Args:
        size: side of the square input in pixels.
        batch_size: pictures of one forward pass on one device.
        workers: reading processes; 0 reads in the training process.
        holdout: training pictures set aside for validation; 0 validates on the data set's own validation part.
        max_unreadable: broken pictures that are skipped and reported before the run stops.
    """

    size: int = 224
    batch_size: int = 128
    workers: int = 8
    holdout: int = 0
    max_unreadable: int = 50


@dataclass(frozen=True)
class AugmentSettings:
    """How training pictures are varied.

    Args:
        kind: "crop" cuts and resizes random regions (ImageNet, one picture at a time); "shift" moves the whole
            picture by a few pixels (a batch at a time; keeps the resized training set in memory).
        crop_scale: smallest and largest share of the picture that "crop" keeps.
        shift_pixels: largest move of "shift" in input pixels.
        horizontal_flip: probability.
        rand_augment: policy in timm's notation, "" for none; for "crop" only.
        erase_probability: probability that a random box is overwritten with noise.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        mix_probability: probability that a batch is mixed at all.
        mix_switch_probability: probability of CutMix where both are on.
    """

    kind: Literal["crop", "shift"] = "crop"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    shift_pixels: int = 4
    horizontal_flip: float = 0.5
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    erase_probability: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    mix_switch_probability: float = 0.5


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights move.

    Args:
        name: "adamw", or "sgd" with Nesterov momentum.
        lr_per_512: learning rate for 512 pictures in one step; scaled with the true number, as are the next two.
        warmup_lr_per_512: learning rate at the first step.
        min_lr_per_512: learning rate at the end.
        weight_decay: decay of all tensors with two axes or more.
        betas: AdamW's moments.
        eps: AdamW's epsilon.
        momentum: of SGD.
        layer_decay: factor on the learning rate from each block to the one before it; 1 for none.
        dcn_lr_multiplier: factor on the operator's offset and gate layers; acts with `layer_decay` < 1 only, as in
            the original.
        clip_norm: largest gradient norm of a step, 0 for no limit.
        accumulation_steps: batches that make one step.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr_per_512: float = 5e-4
    warmup_lr_per_512: float = 5e-7
    min_lr_per_512: float = 5e-6
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    layer_decay: float = 1.0
    dcn_lr_multiplier: float = 1.0
    clip_norm: float = 5.0
    accumulation_steps: int = 1


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate moves.

    Args:
        kind: "cosine" to the minimum, "linear" to 1 % of the base, "step" by `step_factor` every `step_epochs`.
        epochs: passes over the training set.
        warmup_epochs: passes of linear warm-up.
        step_epochs: passes between two steps.
        step_factor: factor of a step.
    """

    kind: Literal["cosine", "linear", "step"] = "cosine"
    epochs: int = 300
    warmup_epochs: int = 20
    step_epochs: int = 30
    step_factor: float = 0.1


@dataclass(frozen=True)
class EmaSettings:
    """The running average of the weights, which is what a run delivers when it is on.

    Args:
        decay: share of the old average that stays at each step; 0 switches the average off.
        warmup: start with smaller decays, min(decay, (1 + n) / (10 + n)) at update n; for short runs.
    """

    decay: float = 0.9999
    warmup: bool = False


@dataclass(frozen=True)
class RunSettings:
    """How a run behaves.

    Args:
        seed: start of all random numbers.
        precision: "fp32", or "bf16" for autocast.
        threads: CPU threads of torch, 0 leaves the default.
        save_minutes: time between two saved states within an epoch; each epoch's end is saved anyway.
        tensorboard: write TensorBoard events.
        plot: draw the curves after each epoch.
    """

    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 0
    save_minutes: float = 10.0
    tensorboard: bool = True
    plot: bool = True


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run.

    Args:
        name: of the recipe, for the published ones the name of their configuration file.
        published_top1: accuracy that the recipe is known to reach, 0..1, or None.
        label_smoothing: share of the target that is spread over all classes, 0..1.
    """

    name: str
    model: ModelSettings
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    run: RunSettings = field(default_factory=RunSettings)
    label_smoothing: float = 0.1
    published_top1: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries of plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def with_overrides(self, overrides: Iterable[str]) -> Recipe:
        """Return a recipe with some settings replaced.

        Args:
            overrides: texts like "schedule.epochs=3" or "label_smoothing=0"; tuples are written "0.9,0.95" and a
                missing value "none".

        Raises:
            ValueError: a text is not `key=value`, or the value has the wrong type or range.
            UnknownName: there is no such key; the message suggests the nearest ones.
        """
        changed = self
        for text in overrides:
            key, separator, value = text.partition("=")
            if not separator:
                raise ValueError(f"an override must look like section.key=value, given {text!r}")
            changed = _replace(changed, key.strip(), value.strip())
        return changed


def setting_names() -> list[str]:
    """Return every key that an override may name, such as "schedule.epochs"."""
    names: list[str] = []
    hints = typing.get_type_hints(Recipe)
    for part in dataclasses.fields(Recipe):
        kind = hints[part.name]
        if dataclasses.is_dataclass(kind):
            names += [f"{part.name}.{inner.name}" for inner in dataclasses.fields(kind)]
        else:
            names.append(part.name)
    return names


def _replace(recipe: Recipe, key: str, text: str) -> Recipe:
    if key not in setting_names():
        raise UnknownName("setting", key, setting_names(), "Settings are written section.key=value.")
    section, _, name = key.rpartition(".")
    if not section:
        return dataclasses.replace(recipe, **{name: parse_value(key, text, typing.get_type_hints(Recipe)[name])})
    settings = getattr(recipe, section)
    value = parse_value(key, text, typing.get_type_hints(type(settings))[name])
    return dataclasses.replace(recipe, **{section: dataclasses.replace(settings, **{name: value})})


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_value(key: str, text: str, kind: Any) -> Any:
    """Turn the text of an override into a value of the type `kind`.

    Raises:
        ValueError: the text is no such value; the message names the key, the type and the text.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        return parse_value(key, text, next(part for part in inner if part is not type(None)))
    if origin is Literal:
        if text in inner:
            return text
        raise ValueError(f"{key} must be one of {', '.join(inner)}, given {text!r}")
    if origin is tuple:
        parts = text.strip("()[] ").split(",")
        if len(parts) != len(inner):
            raise ValueError(f"{key} needs {len(inner)} values separated by commas, given {text!r}")
        return tuple(parse_value(key, part.strip(), part_kind) for part, part_kind in zip(parts, inner, strict=True))
    if kind is bool:
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        raise ValueError(f"{key} must be true or false, given {text!r}")
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{key} must be a number of type {kind.__name__}, given {text!r}") from error


def _check(recipe: Recipe) -> None:
    """Refuse settings that no run can use."""
    at_least = {
        "data.size": 1,
        "data.batch_size": 1,
        "data.workers": 0,
        "data.holdout": 0,
        "data.max_unreadable": 0,
        "augment.shift_pixels": 0,
        "augment.mixup": 0,
        "augment.cutmix": 0,
        "optimizer.lr_per_512": 0,
        "optimizer.warmup_lr_per_512": 0,
        "optimizer.min_lr_per_512": 0,
        "optimizer.weight_decay": 0,
        "optimizer.clip_norm": 0,
        "optimizer.accumulation_steps": 1,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "schedule.step_epochs": 1,
        "run.threads": 0,
        "run.save_minutes": 0,
    }
    shares = ["augment.horizontal_flip", "augment.erase_probability", "augment.mix_probability", "ema.decay"]
    shares += ["augment.mix_switch_probability", "model.drop_path_rate", "optimizer.layer_decay", "label_smoothing"]
    for key in setting_names():
        section, _, name = key.rpartition(".")
        value = getattr(getattr(recipe, section) if section else recipe, name)
        if key in at_least and not value >= at_least[key]:
            raise ValueError(f"{key} must be at least {at_least[key]}, given {value}")
        if key in shares and not 0 <= value <= 1:
            raise ValueError(f"{key} must lie in 0..1, given {value}")
    if recipe.schedule.warmup_epochs >= recipe.schedule.epochs:
        raise ValueError(
            f"schedule.warmup_epochs ({recipe.schedule.warmup_epochs}) must be smaller than schedule.epochs "
            f"({recipe.schedule.epochs})"
        )
    if recipe.augment.kind == "shift" and recipe.augment.rand_augment:
        raise ValueError("augment.rand_augment works on one picture at a time; it needs augment.kind=crop")
