"""A recipe: every setting of a run, from Python, a YAML file or the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from internimage.errors import UnknownName
from internimage.ranges import check_ranges
from internimage.recipe.layer_rules import LayerRules
from internimage.recipe.schedules import Schedule
from internimage.recipe.sections import (
    DataSettings,
    EmaSettings,
    ModelSettings,
    OptimizerSettings,
    ParallelSettings,
    RunSettings,
)
from internimage.settings import (
    NO_SETTING,
    from_plain,
    full_name,
    hint_of,
    leaves,
    meaning,
    owner_of,
    parse_text,
    replaced,
    setting,
    to_plain,
)

RecipeT = TypeVar("RecipeT", bound="Recipe")
CONFIG = "model.config"
# What the data says of a model, and no recipe.
FROM_DATA = ("num_classes", "class_names", "palette")


@dataclass(frozen=True)
class Choice(Generic[RecipeT]):
    """A setting that stands for several values of the model's configuration, such as the size of its backbone.

    Args:
        hint: type of the value.
        get: what a recipe has; None where it has none of the known ones.
        apply: a recipe with another choice.
        meaning: what it means, in one line.
    """

    hint: type
    get: Callable[[RecipeT], object]
    apply: Callable[[RecipeT, Any], RecipeT]
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run; each task adds its own.

    Args:
        name: of the recipe, for the published ones the name of their configuration file.
        model: what is trained, and what it starts from.
        data: how the data set is read.
        optimizer: how weights move.
        ema: the running average of the weights.
        run: how the run behaves.
        parallel: how several processes train together.
        explicit: keys of the settings that the user has chosen, such as "schedule.epochs", which no run suits to its
            data; not a setting itself.
    """

    task: ClassVar[str]
    # Where the length of the warm-up lies, and the most epochs of a fine-tuning, which takes fewer than a random start.
    WARMUP: ClassVar[str]
    FINE_TUNING_EPOCHS: ClassVar[int]
    # Short names of settings that lie deeper, and names that stand for several values.
    SHORT: ClassVar[Mapping[str, str]] = {
        "model.in_chans": f"{CONFIG}.backbone.in_chans",
        "model.drop_path_rate": f"{CONFIG}.backbone.drop_path_rate",
    }
    CHOICES: ClassVar[Mapping[str, Choice[Any]]] = {}

    name: str
    model: ModelSettings[Any]
    data: DataSettings = field(default_factory=DataSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    run: RunSettings = field(default_factory=RunSettings)
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    explicit: frozenset[str] = field(default=frozenset(), compare=False, repr=False, metadata=NO_SETTING)

    def __post_init__(self) -> None:
        config = self.model.config
        given = {f.name for f in dataclasses.fields(config)} & set(FROM_DATA)
        fresh = dataclasses.replace(config, **{name: 1 if name == "num_classes" else None for name in given})
        if fresh != config:
            object.__setattr__(self, "model", dataclasses.replace(self.model, config=fresh))
        for part in dataclasses.fields(self):
            if dataclasses.is_dataclass(section := getattr(self, part.name)):
                check_ranges(section, name=part.name)
        self.check()

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            ValueError: no run can use them.
        """

    def layer_rules(self) -> LayerRules:
        """Return how fast each part of the model learns."""
        raise NotImplementedError

    def rates(self, steps_per_epoch: int, *, world: int = 1) -> Schedule:
        """Return the learning rates of a run.

        Args:
            steps_per_epoch: optimizer steps of one epoch.
            world: devices that train together.
        """
        raise NotImplementedError

    def warmup_unit(self, steps_per_epoch: int) -> int:
        """Return the optimizer steps of what `WARMUP` counts."""
        return 1

    # --- names and values

    def names(self) -> list[str]:
        """Return the name of every setting, such as "schedule.epochs"; short names come for what lies deep."""
        short = {key: name for name, key in self.SHORT.items()}
        found = [name for name, _ in leaves(self) if not _is_from_data(name)]
        return [found[0], *self.CHOICES, *(short.get(name, name) for name in found[1:])]

    def key(self, name: str) -> str:
        """Return where a setting lies, by its name."""
        return self.SHORT.get(name, name)

    def shown(self, key: str) -> str:
        """Return the name of a setting by where it lies."""
        return next((name for name, place in self.SHORT.items() if place == key), key)

    def value(self, name: str) -> object:
        """Return the value of a setting by its name."""
        return self.CHOICES[name].get(self) if name in self.CHOICES else setting(self, self.key(name))

    def meaning(self, name: str) -> str:
        """Return what a setting means, in one line."""
        return self.CHOICES[name].meaning if name in self.CHOICES else meaning(self, self.key(name))

    # --- plain values

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries of plain values, ready for JSON."""
        plain: dict[str, Any] = to_plain(self)
        config = plain["model"]["config"]
        plain["model"]["config"] = {name: value for name, value in config.items() if name not in FROM_DATA}
        return plain

    @classmethod
    def from_dict(cls: type[RecipeT], plain: Mapping[str, Any]) -> RecipeT:
        """Rebuild a recipe from what `to_dict` returned.

        Raises:
            ValueError: a setting is unknown or out of its range.
            TypeError: a setting is missing or has the wrong type.
        """
        model = plain.get("model")
        config = model.get("config") if isinstance(model, Mapping) else None
        if isinstance(model, Mapping) and isinstance(config, Mapping):
            given = sorted(config.keys() & set(FROM_DATA))
            if given:
                raise ValueError(f"{CONFIG} takes {', '.join(given)} from the data (data.classes); leave it out")
            plain = {**plain, "model": {**model, "config": {**config, "num_classes": 1}}}
        if "explicit" in plain:
            raise ValueError(f"{cls.__name__} has no field explicit")
        return from_plain(cls, plain)

    # --- changes

    def with_overrides(self: RecipeT, overrides: Iterable[str]) -> RecipeT:
        """Return a recipe with some settings replaced; they count as chosen by the user.

        Args:
            overrides: texts like "schedule.epochs=3" or "label_smoothing=0"; lists are written "0.9,0.95" and a missing
                value "none". The section may be left out where only one has such a setting.

        Raises:
            ValueError: a text is not `key=value`, or the value has the wrong type or range.
            UnknownName: there is no such key; the message suggests the nearest ones.
        """
        texts = dict(map(_divided, overrides))
        chosen = {self._choice(name): text for name, text in texts.items() if self._choice(name)}
        recipe = self
        for name, choice in self.CHOICES.items():
            if name in chosen:
                recipe = choice.apply(recipe, parse_text(choice.hint, chosen[name], name))
        values: dict[str, object] = {}
        for given, text in texts.items():
            if not self._choice(given):
                name = full_name(given, list(dict.fromkeys((*recipe.names(), *recipe.SHORT))))
                values[recipe.key(name)] = recipe._parsed(name, text)
        explicit = self.explicit | values.keys() | chosen.keys()
        try:
            return replaced(recipe, {**recipe.implied(values), **values, "explicit": explicit})
        except (ValueError, TypeError) as error:
            place, _, rest = str(error).partition(" ")
            if isinstance(error, UnknownName) or recipe.shown(place) == place:
                raise
            raise ValueError(f"{recipe.shown(place)} {rest}") from None

    def _choice(self, name: str) -> str | None:
        """Return the full name of a choice, or None for other settings."""
        return next((known for known in self.CHOICES if name in (known, known.rpartition(".")[2])), None)

    def _parsed(self, name: str, text: str) -> object:
        key = self.key(name)
        if key not in dict(leaves(self)):
            raise ValueError(f"{name} is no setting of this model ({type(self.model.config).__name__})")
        if name in self.SHORT and text.lower() in ("none", "null"):  # as the model has it by itself
            owner, last = owner_of(self, key)
            default = {f.name: f.default for f in dataclasses.fields(owner)}[last]  # type: ignore[arg-type]  # a dataclass
            if default is not dataclasses.MISSING:
                return default
        return parse_text(hint_of(self, key), text, name)

    def implied(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what else must change when the user chooses some values, by where they lie."""
        preprocess, changes = f"{CONFIG}.preprocess", dict[str, Any]()
        if values.get(self.SHORT["model.in_chans"]) is not None:
            kind = type(setting(self, preprocess))
            for name in ("mean", "std"):
                key, own = f"{preprocess}.{name}", getattr(kind(), name)
                if key not in values and len(set(setting(self, key))) == 1:  # the average of those of RGB
                    changes[key] = own
        return changes

    def with_values(self: RecipeT, values: Mapping[str, Any]) -> RecipeT:
        """Return a recipe with some settings replaced, whoever has chosen them before."""
        return replaced(self, values)

    def suited(self: RecipeT, values: Mapping[str, Any]) -> RecipeT:
        """Return a recipe with some settings replaced that the user has not chosen."""
        return replaced(self, {key: value for key, value in values.items() if key not in self.explicit})


def _is_from_data(name: str) -> bool:
    section, _, last = name.rpartition(".")
    return section == CONFIG and last in FROM_DATA


def _divided(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"an override must look like section.key=value, given {text!r}")
    return key.strip(), value.strip()
