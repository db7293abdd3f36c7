"""From any known format of a model to any other, losing nothing of the weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internimage import tasks
from internimage.checkpoints.local import WEIGHT_FILES
from internimage.checkpoints.rename import to_huggingface
from internimage.checkpoints.run_folder import STATE_FILE, weights_within
from internimage.checkpoints.save import save_model, write_safetensors, write_torch_file
from internimage.flow import Settings, TaskModel
from internimage.hub.keys import original_state
from internimage.hub.load import load
from internimage.hub.opening import read_checkpoint


def convert(
    source: str | PathLike[str],
    destination: str | PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    ema: bool | None = None,
    cache_dir: str | PathLike[str] | None = None,
    offline: bool = False,
) -> Path:
    """Write a checkpoint in another format.

    Every tensor keeps its value and type, so that a way there and back ends where it began. What belongs to a training
    run alone (optimizer, schedule) stays behind.

    Args:
        source: whatever `load` takes.
        destination: `NAME.safetensors` for our format, `NAME.pth` for the original's, a path without suffix for a
            folder in the format of Transformers (classifiers only).
        dtype: floating type of the result, None for the source's; `torch.float16` halves the size.
        ema: which weights of a training file, see `load`.
        cache_dir: where downloads are kept.
        offline: use no network.

    Returns:
        The path written.

    Raises:
        ValueError: the destination's format is unknown or cannot hold the model.
        FileExistsError: the destination is a folder that holds other things.
    """
    destination = Path(destination)
    suffix = destination.suffix.lower()
    if suffix not in (".safetensors", ".pth", ".pt", ""):
        raise ValueError(
            f"destination must end in .safetensors or .pth, or be a folder without suffix, given {suffix!r}"
        )
    model = load(source, ema=ema, cache_dir=cache_dir, offline=offline, dtype=dtype)
    if suffix == ".safetensors":
        return save_model(model, destination, info=_notes(source, ema=ema))
    if not isinstance(model, TaskModel):
        raise ValueError(f"{source} is a bare backbone; it is kept as .safetensors only")
    task, state = tasks.of_model(model), original_state(model)
    if suffix:
        return write_torch_file(task.to_original(model.config, state), destination)
    if task.to_folder is None:
        nouns = " and ".join(f"{other.noun}s" for other in tasks.every() if other.to_folder is not None)
        raise ValueError(f"{source} is for {task.name}; only {nouns} are kept as folders of Transformers")
    return _write_folder(to_huggingface(state), task.to_folder(model.config), destination)


def _notes(source: str | PathLike[str], *, ema: bool | None) -> Mapping[str, Any] | None:
    """Return the notes in a file of ours, None for other sources."""
    path = Path(source)
    if path.is_dir():
        path = weights_within(path, ema=ema) or path
    is_ours = path.suffix == ".safetensors" or path.name == STATE_FILE
    return read_checkpoint(path, ema=ema).info if path.is_file() and is_ours else None


def _write_folder(state: Mapping[str, Tensor], texts: Mapping[str, Settings], folder: Path) -> Path:
    """Write a folder of Transformers: weights, configuration and preprocessing, whole or not at all."""
    known = {*texts, *WEIGHT_FILES}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known) if folder.exists() else []
    if others:
        raise FileExistsError(f"{folder} holds other files ({', '.join(others[:3])}); choose a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_safetensors(state, temporary / WEIGHT_FILES[0], {"format": "pt"})
        for name, content in texts.items():
            (temporary / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder
