"""What every recipe has in common: how weights move, what is averaged, how a run behaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from internimage.training.overrides import check_ranges, override_values, with_values

RecipeT = TypeVar("RecipeT", bound="Recipe")
Start = Literal["auto", "published", "recipe"]


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights move.

    Args:
        name: "adamw", or "sgd" with Nesterov momentum.
        weight_decay: decay of all tensors with two axes or more.
        betas: AdamW's moments.
        eps: AdamW's epsilon.
        momentum: of SGD.
        layer_decay: factor on the learning rate from each block to the one before it; 1 for none.
        clip_norm: largest gradient norm of a step, 0 for no limit.
        accumulation_steps: batches that make one step.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    layer_decay: float = 1.0
    clip_norm: float = 5.0
    accumulation_steps: int = 1


@dataclass(frozen=True)
class EmaSettings:
    """The running average of the weights, which is what a run delivers when it is on.

    Args:
        decay: share of the old average that stays at each step; 0 switches the average off.
        warmup: start with smaller decays, min(decay, (1 + n) / (10 + n)) at update n; for short runs.
        follow_steps: start by following the weights, decay * (1 - exp(-n / follow_steps)) at update n; 0 for not.
    """

    decay: float = 0.9999
    warmup: bool = False
    follow_steps: int = 0


@dataclass(frozen=True)
class RunSettings:
    """How a run behaves.

    Args:
        seed: start of all random numbers.
        precision: "fp32", "bf16" for autocast, or "auto": bf16 where the device has instructions for it.
        threads: CPU threads of torch, 0 leaves the default.
        save_minutes: time between two saved states within an epoch; each validation is followed by one anyway.
        tensorboard: write TensorBoard events.
        plot: draw the curves after each validation.
    """

    seed: int = 0
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    threads: int = 0
    save_minutes: float = 10.0
    tensorboard: bool = True
    plot: bool = True


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run; each task adds its own.

    Args:
        name: of the recipe, for the published ones the name of their configuration file.
        optimizer: how weights move.
        ema: the running average of the weights.
        run: how the run behaves.
        explicit: keys of the settings that the user has chosen, such as "schedule.epochs", which no run suits to its
            data; not a setting itself.
    """

    task: ClassVar[str]

    name: str
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    run: RunSettings = field(default_factory=RunSettings)
    explicit: frozenset[str] = field(default=frozenset(), compare=False, repr=False, metadata={"is_setting": False})

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries of plain values, ready for JSON."""
        plain = dataclasses.asdict(self)
        del plain["explicit"]
        return plain

    def with_overrides(self: RecipeT, overrides: Iterable[str]) -> RecipeT:
        """Return a recipe with some settings replaced; they count as chosen by the user.

        Args:
            overrides: texts like "schedule.epochs=3", see `internimage.training.overrides.override_values`.

        Raises:
            ValueError: a text is not `key=value`, or the value has the wrong type or range.
            UnknownName: there is no such key; the message suggests the nearest ones.
        """
        values = override_values(self, overrides)
        return with_values(self, {**self.implied(values), **values, "explicit": self.explicit | values.keys()})

    def implied(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what else must change when the user chooses some values, by full names."""
        return {}

    def with_choice(self: RecipeT, values: Mapping[str, Any]) -> RecipeT:
        """Return a recipe with some settings replaced, whoever has chosen them before."""
        return with_values(self, values)

    def suited(self: RecipeT, values: Mapping[str, Any]) -> RecipeT:
        """Return a recipe with some settings replaced that the user has not chosen."""
        return with_values(self, {key: value for key, value in values.items() if key not in self.explicit})

    def check_common(self) -> None:
        """Refuse values of the common settings that no run can use.

        Raises:
            ValueError: a value is out of its range.
        """
        at_least = {
            "optimizer.weight_decay": 0,
            "optimizer.clip_norm": 0,
            "optimizer.accumulation_steps": 1,
            "ema.follow_steps": 0,
            "run.threads": 0,
            "run.save_minutes": 0,
        }
        check_ranges(self, at_least=at_least, shares=("optimizer.layer_decay", "ema.decay"))
