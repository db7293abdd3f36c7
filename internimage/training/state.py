"""The saved state of a run: everything that a resumed run needs to go on bit for bit."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch

from internimage import parallel
from internimage.checkpoints.pieces import DamagedFile, changed, whole, without_pieces, write_pieces
from internimage.checkpoints.run_folder import (
    PIECES,
    STATE_FILE,
    STATES_FOLDER,
    TRAINED,
    open_state,
    saved_states,
    state_folder,
    state_folders,
)
from internimage.checkpoints.save import write_torch_file
from internimage.files import remove_leftovers, replacing
from internimage.recipe import Recipe
from internimage.training.device import HeldStates, PieceStates, StoredStates
from internimage.training.meters import MeterSums
from internimage.training.recipes import with_short_names

if TYPE_CHECKING:
    from typing_extensions import NotRequired

logger = logging.getLogger(__name__)
RECIPE_FILE, DATA_FILE = "recipe.json", "data.json.gz"
FORMAT = 2
LAST_WEIGHTS, BEST_WEIGHTS = "last.safetensors", "best.safetensors"
# Everything that a run writes whole or not at all.
RUN_FILES = (
    *(STATE_FILE, RECIPE_FILE, DATA_FILE, LAST_WEIGHTS, BEST_WEIGHTS),
    *("metrics.csv", "curves.png", "environment.json", "trackers.json", "README.txt"),
)
LOCK_FILE = ".lock"
_TEMPORARY = re.compile(r"\.(state\.pt|shard-.{1,70})\.[0-9a-f]{8}\.tmp")  # in the folder of a state


class RunPosition(TypedDict):
    """Where a run stands, besides what it trains; states of older releases lack some entries."""

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


class RunState(RunPosition, HeldStates):
    """What a run needs to go on bit for bit."""


class StoredRun(RunPosition, StoredStates):
    """The same as it lies in files: tensors are read when they are asked for."""


def save_state(out: Path, position: RunPosition, trained: HeldStates | PieceStates, *, keep: int) -> None:
    """Write the state of a run, then drop those that are not kept; a crash while writing leaves those before.

    Args:
        out: folder of the run.
        position: where the run stands.
        trained: what this process keeps of the rest: tensors where it is alone, else pieces. All processes call this.
        keep: how many states stay, this one among them. A process on its own that keeps one writes a single file.

    Raises:
        OSError: one of the processes cannot write its part; the message says which. The states before stay.
    """
    folder, shards = state_folder(out, position["step"]), []
    path = (out if parallel.world() == 1 == keep else folder) / STATE_FILE
    if parallel.world() == 1:
        write_torch_file({**position, **trained}, path)
    else:
        parallel.each_does(lambda: folder.mkdir(parents=True, exist_ok=True), may_fail=OSError)
        shards = _save_shards(path, position, trained)
    if parallel.rank() == 0:
        _remove_shards(folder, but=shards)
        _rotate(out, path, position["step"], keep)


def _save_shards(path: Path, position: RunPosition, trained: HeldStates | PieceStates) -> list[str]:
    """Write the part of each process, then what makes it a state; return the names of the parts."""
    token = parallel.gathered(secrets.token_hex(4))[0]  # a state of this step that is there stays until the new one is
    rank, world = parallel.rank(), parallel.world()
    own = path.with_name(f"shard-{rank:05d}-of-{world:05d}-{token}.safetensors")

    def write_state() -> None:
        if rank == 0:
            write_torch_file({**position, **without_pieces(trained), PIECES: dict(notes)}, path)

    try:
        notes = parallel.each_does(
            lambda: (own.name, write_pieces(trained, own, tells_all=rank == 0)), may_fail=OSError
        )
        parallel.each_does(write_state, may_fail=OSError)
    except OSError:
        own.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a state of this step is there, or another process is not done
            path.parent.rmdir()
        raise
    return [name for name, _ in notes]


def _rotate(out: Path, written: Path, step: int, keep: int) -> None:
    """Drop the states beyond the ones to keep, and those of later steps, which the run did not go on from."""
    others = {path: of_step for path, of_step in saved_states(out).items() if path != written}
    kept = [path for path, of_step in others.items() if of_step <= step][: keep - 1]
    for path in others:
        if path not in kept:
            path.unlink(missing_ok=True)  # first of all: what is left of a folder is no state
    _remove_folders_without_state(out)


def _remove_folders_without_state(out: Path) -> None:
    for folder in state_folders(out):
        if not (folder / STATE_FILE).exists():
            _remove_shards(folder)
            with contextlib.suppress(OSError):  # it holds something that is not ours
                folder.rmdir()
    with contextlib.suppress(OSError):
        (out / STATES_FOLDER).rmdir()


def _remove_shards(folder: Path, *, but: Sequence[str] = ()) -> None:
    for path in folder.glob("shard-*.safetensors"):
        if path.name not in but:
            path.unlink(missing_ok=True)


def remove_unfinished(out: Path) -> None:
    """Remove what killed writes left behind in the folder of a run; called while nobody writes there."""
    remove_leftovers(out, RUN_FILES)
    for folder in state_folders(out):
        written = [name.group(1) for path in folder.iterdir() if (name := _TEMPORARY.fullmatch(path.name))]
        remove_leftovers(folder, written)
    _remove_folders_without_state(out)


class SavedStates:
    """The states of a run, of which the newest that is sound counts.

    Args:
        out: folder of the run.

    Raises:
        FileNotFoundError: it holds no state.
    """

    def __init__(self, out: Path) -> None:
        self._paths = list(saved_states(out))
        self._opened: StoredRun | None = None
        if not self._paths:
            raise FileNotFoundError(
                f"{out / STATE_FILE} does not exist, so there is nothing to resume; start without resume"
            )

    def newest(self) -> StoredRun:
        """Return the newest state that can be opened and was not given up.

        Raises:
            ValueError: there is none, or it is of another format.
        """
        while self._opened is None:
            path = self._paths[0]
            try:
                state = open_state(path)
            except DamagedFile as error:
                self.give_up(error)
                continue
            if state.get("format") != FORMAT:
                raise ValueError(f"{path} is no training state of format {FORMAT}")
            self._opened = cast("StoredRun", state)
        return self._opened

    def give_up(self, error: DamagedFile) -> None:
        """Pass over the newest state, which is damaged.

        Raises:
            DamagedFile: there is none before it.
        """
        del self._paths[0]
        self._opened = None
        if not self._paths:
            raise error
        logger.warning("%s; goes on from the state before, %s", error, self._paths[0])


def load_state(out: Path) -> RunState:
    """Read the newest sound state of a run as a whole, without executing anything from its files.

    Raises:
        FileNotFoundError: the folder holds no state.
        ValueError: it is damaged or of another format.
    """
    states = SavedStates(out)
    while True:
        state = states.newest()
        try:
            trained = {key: changed(state.get(key), whole) for key in TRAINED}
        except DamagedFile as error:
            states.give_up(error)
            continue
        return cast("RunState", {**state, **trained})


def save_recipe(out: Path, recipe: Recipe) -> Path:
    """Write the recipe of a run as JSON."""
    with replacing(out / RECIPE_FILE) as temporary:
        temporary.write_text(json.dumps(with_short_names(recipe), indent=2) + "\n", encoding="utf-8")
    return out / RECIPE_FILE


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
