"""What a training run leaves in its folder: weights, and the states that it goes on from.

A state is one file, `state.pt`, or, of several processes or where several states are kept, a folder below `states`:
there `state.pt` is written last, beside a shard of each process, and without it the folder holds nothing.
"""

from __future__ import annotations

import logging
import math
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from internimage.checkpoints.formats.huggingface import CONFIG
from internimage.checkpoints.pieces import DamagedFile, Route, Stored, changed, read_pieces, whole, with_stored

# What marks the folder of a training run, and its weights, the ones to prefer first.
RUN_RECIPE, RUN_WEIGHTS = "recipe.json", ("best.safetensors", "last.safetensors")
STATE_FILE, STATES_FOLDER = "state.pt", "states"
TRAINED = ("model", "ema", "optimizer")  # the entries of a state that hold what is trained
PIECES = "pieces"  # the entry of a state that says what lies in the files beside it
_STATE_FOLDER = re.compile(r"step-(\d{8,12})")

logger = logging.getLogger(__name__)


def run_weights(folder: Path) -> Path | None:
    """Return the weights that a training run left in a folder, the best ones where it has any, None for other folders.

    Raises:
        FileNotFoundError: it is the folder of a run that has no weights.
    """
    if not (folder / RUN_RECIPE).is_file() or (folder / CONFIG).exists():
        return None
    found = next((folder / name for name in RUN_WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{folder} is the folder of a training run, but has none of {', '.join(RUN_WEIGHTS)}")
    logger.info("%s: taking %s", folder, found.name)
    return found


def weights_within(folder: Path, *, ema: bool | None) -> Path | None:
    """Return the file that a folder of a run stands for, or one of its states; None for other folders.

    Args:
        folder: a folder.
        ema: None takes the weights that the run left; averaged and raw ones are both in its newest state.

    Raises:
        FileNotFoundError: it is the folder of a run that has no weights.
    """
    if _STATE_FOLDER.fullmatch(folder.name) and (folder / STATE_FILE).is_file():
        return folder / STATE_FILE
    states = saved_states(folder) if ema is not None and (folder / RUN_RECIPE).is_file() else {}
    return next(iter(states), None) or run_weights(folder)


def described_beside(state: Path) -> Path | None:
    """Return the weights whose header describes the model of a state, None where there are none."""
    runs = (state.parent, state.parent.parent.parent)
    files = (run / RUN_WEIGHTS[-1] for run in runs if (run / RUN_RECIPE).is_file())
    return next((path for path in files if path.is_file()), None)


def with_weights(state: object, path: Path) -> object:
    """Return a state with the weights that lie in the files beside it; as it is where they are in it.

    Args:
        state: what a `state.pt` holds; other content comes back as it is.
        path: the file.

    Raises:
        DamagedFile: a file is damaged.
    """
    if path.name != STATE_FILE or not isinstance(state, dict) or PIECES not in state:
        return state
    found = {key: value for key, value in state.items() if key != PIECES}
    stored = _stored_beside(path, state[PIECES])
    parts = ("model", "ema")
    with_stored(found, {route: value for route, value in stored.items() if route[0] in parts})
    return {key: changed(value, whole) if key in parts else value for key, value in found.items()}


def state_folder(out: Path, step: int) -> Path:
    """Return the folder of the state after a step."""
    return out / STATES_FOLDER / f"step-{step:08d}"


def state_folders(out: Path) -> dict[Path, int]:
    """Return all folders of states in the folder of a run, whole or not, with their steps."""
    found = (out / STATES_FOLDER).iterdir() if (out / STATES_FOLDER).is_dir() else iter(())
    matched = ((path, _STATE_FOLDER.fullmatch(path.name)) for path in found if path.is_dir())
    return {path: int(match[1]) for path, match in matched if match is not None}


def saved_states(out: Path) -> dict[Path, float]:
    """Return the `state.pt` of each state of a run with its step, the newest first.

    Args:
        out: folder of the run.
    """
    found: dict[Path, float] = {path / STATE_FILE: step for path, step in state_folders(out).items()}
    found = {path: step for path, step in found.items() if path.is_file()}
    if (out / STATE_FILE).is_file():
        # Only beside others is its step needed.
        found[out / STATE_FILE] = _step_of(out / STATE_FILE) if found else math.inf
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def open_state(path: Path) -> dict[str, Any]:
    """Read a `state.pt` without executing anything from it; its tensors are `Stored`.

    Args:
        path: the file, which stands for those beside it.

    Raises:
        DamagedFile: it is damaged, or one of the files beside it.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise DamagedFile(f"{path} is damaged and cannot be resumed: {error}") from error
    if not isinstance(state, dict):
        raise DamagedFile(f"{path} is no training state")
    notes = state.pop(PIECES, None)
    if notes is None:
        return {key: changed(value, Stored) if key in TRAINED else value for key, value in state.items()}
    with_stored(state, _stored_beside(path, notes))
    return state


def _stored_beside(path: Path, notes: Any) -> dict[Route, Stored]:
    try:
        return read_pieces(notes, path.parent)
    except (TypeError, AttributeError) as error:
        raise DamagedFile(f"{path} is damaged: what it says of the files beside it cannot be read ({error})") from error


def _step_of(path: Path) -> float:
    """Return the step of a state in one file; infinity where it cannot be read, so that it is not passed over."""
    try:
        return float(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])
    except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, KeyError):
        return math.inf
