"""Reading a file or folder of weights of any known kind.

Reading maps the file where its format allows, so that looking at names and shapes costs nothing.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from internimage.backbones import BackboneConfig
from internimage.backbones.original.names import BACKBONE
from internimage.checkpoints.checkpoint import KnownModels, is_larger_model, plain_settings, shapes_of, unpack
from internimage.checkpoints.foreign import about
from internimage.checkpoints.formats.huggingface import (
    CONFIG,
    read_class_names,
    read_preprocess,
    read_settings,
    shard_names,
)
from internimage.checkpoints.formats.openmmlab import stored_meta, stored_names, stored_palette, stored_settings
from internimage.checkpoints.formats.torch_files import load_torch_file
from internimage.checkpoints.header import HEADER_KEY, from_json
from internimage.checkpoints.local import WEIGHT_FILES
from internimage.checkpoints.rename import to_original
from internimage.checkpoints.run_folder import STATE_FILE, described_beside, weights_within, with_weights
from internimage.errors import printable
from internimage.flow import Checkpoint, Stated

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | PathLike[str], known: KnownModels, *, ema: bool | None = None) -> Checkpoint:
    """Open a weight file or a Transformers folder of any known kind.

    Args:
        path: `.safetensors` (ours, with the model's description, or anybody's), a `.pth` in any published container,
            a folder with `config.json` and `model.safetensors` or `pytorch_model.bin`, or the folder of a training
            run or of one of its states, see `weights_within`.
        known: the models that there are, see `internimage.tasks.known`.
        ema: True for the averaged weights of a training file, False for the raw ones, None for the raw ones if there
            are any.

    Returns:
        Names, shapes and a way to read the tensors, see `Checkpoint`.

    Raises:
        FileNotFoundError: there is no such file, or the folder holds no weights.
        ValueError: the file is damaged, dangerous, or holds no weights.
    """
    path = Path(path)
    if path.is_dir():
        path = weights_within(path, ema=ema) or path
    if not path.exists():
        raise FileNotFoundError(f"no weight file at {printable(path)}")
    with about(str(path)):
        if path.is_dir():
            return _read_folder(path, ema, known)
        read = _read_safetensors if path.suffix == ".safetensors" else _read_torch_file
        return read(path, ema, known)


def _read_torch_file(path: Path, ema: bool | None, known: KnownModels) -> Checkpoint:
    """Open a file of `torch.save`; the older format cannot be mapped and stays in memory."""
    stored = load_torch_file(path)
    content = with_weights(stored, path)
    again = partial(load_torch_file, path) if zipfile.is_zipfile(path) and content is stored else None
    checkpoint = _foreign(path, content, again, ema, known)
    if path.name == STATE_FILE and (described := described_beside(path)) is not None:
        return _of_run(checkpoint, content, described, known)
    text = stored_meta(content).get(HEADER_KEY)
    config, info = from_json(text, str(path), known.configs) if isinstance(text, str) else (None, {})
    preprocess = content.get("preprocess") if isinstance(content, Mapping) else None
    stated = Stated(
        settings=plain_settings(content) or stored_settings(content),
        preprocess=preprocess if isinstance(preprocess, Mapping) else None,  # what `internimage.convert` stores
        class_names=stored_names(content),
        palette=stored_palette(content),
    )
    return replace(checkpoint, config=config, info=info, stated=stated)


def _of_run(checkpoint: Checkpoint, state: object, described: Path, known: KnownModels) -> Checkpoint:
    """Return the weights in a state of a run, with what another file of the run says of the model."""
    text = _map_safetensors(described)[1].get(HEADER_KEY)
    if text is None:
        return checkpoint
    config, info = from_json(text, str(described), known.configs)
    step = state.get("step") if isinstance(state, Mapping) else None
    return replace(checkpoint, config=config, info={"recipe": info.get("recipe"), "step": step})


def _foreign(
    path: Path, content: object, again: Callable[[], object] | None, ema: bool | None, known: KnownModels
) -> Checkpoint:
    """Return the weights in the content of anybody's file; `again` maps the content anew, None where it was copied."""
    state, is_part, where = unpack(content, str(path), ema, known)
    logger.info("%s: taking %s", path, where)
    return Checkpoint(
        str(path),
        shapes_of(state),
        (lambda: state) if again is None else lambda: unpack(again(), str(path), ema, known).tensors,
        in_memory=again is None,
        is_part=is_part,
    )


def _read_safetensors(path: Path, ema: bool | None, known: KnownModels) -> Checkpoint:
    """Open a safetensors file; without our description it counts as an original state dict."""
    state, header = _map_safetensors(path)
    if HEADER_KEY in header:
        return _described(path, state, header[HEADER_KEY], ema, known)
    settings = read_settings(path.parent) if path.name in WEIGHT_FILES else None
    checkpoint = _foreign(path, state, lambda: _map_safetensors(path)[0], ema, known)
    return replace(checkpoint, stated=Stated(settings=settings, is_folder=settings is not None))


def _described(path: Path, state: Mapping[str, Tensor], text: str, ema: bool | None, known: KnownModels) -> Checkpoint:
    """Build the checkpoint of a file of ours."""
    config, info = from_json(text, str(path), known.configs)
    if ema is True:
        raise ValueError(f"{path} holds one set of weights; ema=True is for training files with two")
    rules = BACKBONE if isinstance(config, BackboneConfig) else known.key_rules[config.kind]
    return Checkpoint(
        source=str(path),
        shapes=to_original(shapes_of(state), rules),
        open=lambda: to_original(_map_safetensors(path)[0], rules),
        is_part=is_larger_model(rules),
        config=config,
        info=info,
    )


def _read_folder(folder: Path, ema: bool | None, known: KnownModels) -> Checkpoint:
    """Open a folder in the format of Transformers."""
    found = next((name for name in WEIGHT_FILES if (folder / name).exists()), None)
    settings = read_settings(folder)
    if found is None or settings is None:
        lacking = CONFIG if settings is None else " or ".join(WEIGHT_FILES)
        raise FileNotFoundError(f"{folder} is no model folder: it has no {lacking}")
    weights = [folder / name for name in shard_names(folder / found) or [found]]
    missing = [path.name for path in weights if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; download the folder again")

    def read() -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for path in weights:
            part = _map_safetensors(path)[0] if path.suffix == ".safetensors" else load_torch_file(path)
            if not isinstance(part, Mapping):
                raise ValueError(f"{path} holds no weights by name, but a {type(part).__name__}")
            state |= part
        return state

    stated = Stated(settings, read_preprocess(folder), read_class_names(folder), is_folder=True)
    return replace(_foreign(folder, read(), read, ema, known), stated=stated)


def _map_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map a safetensors file; return its tensors and its header."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except (SafetensorError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error
