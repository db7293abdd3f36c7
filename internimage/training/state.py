"""The saved state of a run: everything that a resumed run needs to go on bit for bit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from internimage.training.settings import Recipe
from internimage.zoo.saving import replacing

STATE_FILE, RECIPE_FILE = "state.pt", "recipe.json"
FORMAT = 2
# Settings that do not change the numbers of a run and may therefore differ when it goes on.
FREE_SETTINGS = frozenset(
    {
        "run.threads",
        "run.save_minutes",
        "run.tensorboard",
        "run.plot",
        "data.workers",
        "published_top1",
        "published_box_ap",
        "published_mask_ap",
        "published_miou",
    }
)


def save_state(out: Path, state: dict[str, Any]) -> Path:
    """Write the state of a run; a crash while writing leaves the one before."""
    with replacing(out / STATE_FILE) as temporary, temporary.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
    return out / STATE_FILE


def save_recipe(out: Path, recipe: Recipe) -> Path:
    """Write the recipe of a run as JSON."""
    with replacing(out / RECIPE_FILE) as temporary:
        temporary.write_text(json.dumps(recipe.to_dict(), indent=2) + "\n", encoding="utf-8")
    return out / RECIPE_FILE


def load_state(out: Path) -> dict[str, Any]:
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
    return state


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe as {"section.key": value}; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(recipe.to_dict())).items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat


def refuse_other_settings(saved: dict[str, Any], recipe: Recipe) -> None:
    """Check that a run is resumed with the settings it was started with.

    Raises:
        ValueError: a setting that changes the numbers differs; the message lists all of them.
    """
    present = flat_settings(recipe)
    differing = [
        f"  {key}: started with {saved.get(key)!r}, given {present.get(key)!r}"
        for key in sorted((saved.keys() | present.keys()) - FREE_SETTINGS)
        if saved.get(key, present.get(key)) != present.get(key)  # older runs do not know the newest settings
    ]
    if differing:
        raise ValueError("a run can only be resumed with the settings it was started with:\n" + "\n".join(differing))
