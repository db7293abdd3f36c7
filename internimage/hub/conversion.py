"""From any known format of a model to any other, losing nothing of the weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from internimage.backbones import InternImage
from internimage.checkpoints.formats.huggingface import CONFIG, PREPROCESSOR, config_json, preprocessor_json
from internimage.checkpoints.header import AnyModel, config_kind, describe, to_json
from internimage.checkpoints.local import WEIGHT_FILES
from internimage.checkpoints.read import META_KEY, read_checkpoint, run_weights
from internimage.checkpoints.rename import to_huggingface, to_official
from internimage.checkpoints.save import save_model, write_safetensors, write_torch_file
from internimage.classification import Classifier
from internimage.classification.original.settings import FLASH_TYPE, classifier_to_settings
from internimage.detection import Detector
from internimage.hub.factory import load
from internimage.segmentation import Segmentor


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
    model = cast(AnyModel, load(source, ema=ema, cache_dir=cache_dir, offline=offline, dtype=dtype))
    if suffix == ".safetensors":
        return save_model(model, destination, info=_notes(source))
    if isinstance(model, InternImage):
        raise ValueError(f"{source} is a bare backbone; it is kept as .safetensors only")
    if isinstance(model, Classifier):
        return _write_classifier(model, destination) if suffix else _write_folder(model, destination)
    if not suffix:
        raise ValueError(f"{source} is for {model.task}; only classifiers are kept as folders of Transformers")
    return _write_larger_model(model, destination)


def _notes(source: str | PathLike[str]) -> Mapping[str, Any] | None:
    """Return the notes in a file of ours, None for other sources."""
    path = Path(source)
    if path.is_dir():
        path = run_weights(path) or path
    document = read_checkpoint(path).document if path.is_file() and path.suffix == ".safetensors" else None
    return None if document is None else document.info


def original_state(model: Classifier | Detector | Segmentor) -> dict[str, Tensor]:
    """Return the weights of a model by the original's names, contiguous and on the CPU."""
    state = to_official(model.state_dict(), config_kind(model.config))
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _write_larger_model(model: Detector | Segmentor, path: Path) -> Path:
    """Write the container of the original detectors and segmentors, with our description among its notes."""
    meta: dict[str, Any] = {META_KEY: to_json(describe(model))}  # type: ignore[arg-type]  # RCNN or DINO
    if model.config.class_names is not None:
        meta["CLASSES"] = list(model.config.class_names)
    if isinstance(model, Segmentor) and model.config.palette is not None:
        meta["PALETTE"] = [list(color) for color in model.config.palette]
    return write_torch_file({"meta": meta, "state_dict": original_state(model)}, path)


def _write_classifier(model: Classifier, path: Path) -> Path:
    """Write the container of the original classifiers, with a plain configuration beside the weights."""
    settings = classifier_to_settings(model.config)
    outer = {name: settings.pop(name) for name in ("num_classes", "drop_rate", "drop_path_rate", "drop_path_type")}
    is_flash = model.config.backbone.operator == "dcnv4"
    kind = settings.pop("type", FLASH_TYPE if is_flash else "intern_image")
    section = "FLASH_INTERN_IMAGE" if is_flash else "INTERN_IMAGE"
    content = {
        "model": original_state(model),
        "config": {
            "MODEL": {
                "TYPE": kind,
                **{key.upper(): value for key, value in outer.items()},
                section: {key.upper(): value for key, value in settings.items()},
            },
            "DATA": {"IMG_SIZE": model.config.preprocess.size},
        },
        "preprocess": dataclasses.asdict(model.config.preprocess),
        "class_names": None if model.config.class_names is None else list(model.config.class_names),
    }
    return write_torch_file(content, path)


def _write_folder(model: Classifier, folder: Path) -> Path:
    """Write a folder of Transformers: weights, configuration and preprocessing, whole or not at all."""
    known = {CONFIG, PREPROCESSOR, *WEIGHT_FILES}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known) if folder.exists() else []
    if others:
        raise FileExistsError(f"{folder} holds other files ({', '.join(others[:3])}); choose a new folder")
    texts = {CONFIG: config_json(model.config), PREPROCESSOR: preprocessor_json(model.config.preprocess)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_safetensors(to_huggingface(original_state(model)), temporary / WEIGHT_FILES[0], {"format": "pt"})
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
