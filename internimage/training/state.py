"""The saved state of a run: everything that a resumed run needs to go on bit for bit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from internimage.checkpoints.save import write_torch_file
from internimage.files import replacing
from internimage.recipe import Recipe
from internimage.training.device import HeldStates
from internimage.training.meters import MeterSums
from internimage.training.recipes import with_short_names

if TYPE_CHECKING:
    from typing_extensions import NotRequired

STATE_FILE, RECIPE_FILE, DATA_FILE = "state.pt", "recipe.json", "data.json.gz"
FORMAT = 2
LAST_WEIGHTS, BEST_WEIGHTS = "last.safetensors", "best.safetensors"
# Everything that a run writes whole or not at all.
RUN_FILES = (
    *(STATE_FILE, RECIPE_FILE, DATA_FILE, LAST_WEIGHTS, BEST_WEIGHTS),
    *("metrics.csv", "curves.png", "environment.json", "trackers.json", "README.txt"),
)
LOCK_FILE = ".lock"


class RunState(HeldStates):
    """What a run needs to go on bit for bit; states of older releases lack some entries."""

    format: int
    task: NotRequired[str]
    settings: dict[str, Any]  # see `flat_settings`
    data_path: NotRequired[str]
    data: NotRequired[dict[str, str]]  # see `RunData.digests`
    step: int
    random: dict[str, torch.Tensor]  # see `generator_state`
    rows: list[dict[str, float]]
    best_value: float
    since: MeterSums  # of the first process
    processes: NotRequired[int]  # that train together
    since_of_others: NotRequired[list[MeterSums]]
    scaler: NotRequired[dict[str, Any]]  # of the loss, in fp16


def save_state(out: Path, state: RunState) -> Path:
    """Write the state of a run; a crash while writing leaves the one before."""
    return write_torch_file(state, out / STATE_FILE)


def save_recipe(out: Path, recipe: Recipe) -> Path:
    """Write the recipe of a run as JSON."""
    with replacing(out / RECIPE_FILE) as temporary:
        temporary.write_text(json.dumps(with_short_names(recipe), indent=2) + "\n", encoding="utf-8")
    return out / RECIPE_FILE


def load_state(out: Path) -> RunState:
    """Read the state of a run without executing anything from the file.

    Raises:
        FileNotFoundError: the folder holds no state.
        ValueError: the file is damaged or of another format.
    """
    path = out / STATE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, so there is nothing to resume; start without resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged and cannot be resumed: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is no training state of format {FORMAT}")
    return cast("RunState", state)


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe as {"section.key": value}; tuples become lists, as in JSON."""
    return dict(_flat(recipe.to_dict(), ""))


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested_settings(flat: Mapping[str, object]) -> dict[str, Any]:
    """Return what `flat_settings` made flat as it was."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested


def generator_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's generators that layers draw from (drop path, dropout)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_generator_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `generator_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
