"""What a checkpoint holds, told without loading it: architecture, preprocessing, classes, size and hash of its file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch

from internimage import tasks
from internimage.backbones import BackboneConfig
from internimage.checkpoints.catalog import CatalogEntry, find
from internimage.checkpoints.fill import check_description
from internimage.checkpoints.foreign import about
from internimage.exporting.suffixes import suffix_of
from internimage.flow import TaskConfig
from internimage.hub.opening import read_checkpoint
from internimage.settings import to_plain, to_plain_value

WEIGHT_SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin"})
# Parts of a backbone's settings that tell one size from another.
BACKBONE_FIELDS = ("operator", "depths", "groups", "kernel_size", "mlp_ratio", "layer_scale", "post_norm", "in_chans")


def row_config(entry: CatalogEntry) -> TaskConfig:
    """Return the configuration of the model of a catalog row.

    Raises:
        ValueError: this release does not build it.
    """
    if not entry.is_built:
        raise ValueError(f"{entry.name} is not built by this release; `internimage list` shows what is")
    return tasks.named(entry.task).published(entry.name)


def describe_config(config: TaskConfig | BackboneConfig) -> dict[str, Any]:
    """Return the facts of a configuration as JSON types: model, parameters, backbone, preprocessing, classes.

    Example:
        >>> from internimage import info
        >>> facts = describe_config(row_config(info("internimage_t_1k_224")))
        >>> facts["parameters"], facts["backbone"]["channels"], facts["preprocessing"]["interpolation"]
        (29918424, [64, 128, 256, 512], 'bicubic')
    """
    backbone = config if isinstance(config, BackboneConfig) else config.backbone
    with torch.device("meta"):
        model = tasks.build(config)
    facts: dict[str, Any] = {
        "model": "backbone",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "backbone": {
            "channels": list(backbone.widths),
            **{name: to_plain_value(getattr(backbone, name)) for name in BACKBONE_FIELDS},
        },
    }
    if isinstance(config, BackboneConfig):
        return facts
    return {
        **facts,
        "model": tasks.of_config(config).model_name(config),
        "num_classes": config.num_classes,
        "class_names": to_plain_value(config.class_names),
        "preprocessing": {"interpolation": "bilinear", **to_plain(config.preprocess)},  # only classifiers have a choice
    }


def inspect_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what a weight file or a folder holds, as JSON types; its weights are not loaded into a model.

    Args:
        path: whatever `internimage.load` takes beside names.

    Raises:
        FileNotFoundError: there is no such file, or the folder holds no weights.
        ValueError: the file is damaged, dangerous, or holds no model of this package.
    """
    path = Path(path)
    if suffix_of(path) is not None:
        return _inspect_exported(path)
    checkpoint = read_checkpoint(path)
    config, entry = checkpoint.config, find(path.name)
    if not isinstance(config, BackboneConfig):
        with about(checkpoint.source):
            config = tasks.recognize(checkpoint, None if entry is None else entry.name)
    source = Path(checkpoint.source)
    with about(checkpoint.source):
        check_description(config, checkpoint)  # before anything of the described size is built
        described = describe_config(config)
        dtypes = {tensor.dtype for tensor in checkpoint.open().values()}
    return {
        "task": "backbone" if isinstance(config, BackboneConfig) else tasks.of_config(config).name,
        **described,
        "dtypes": sorted(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype.is_floating_point),
        "notes": dict(checkpoint.info),
        "files": describe_files(source if source.exists() else path),
    }


def _inspect_exported(path: Path) -> dict[str, Any]:
    """Return what a file of `export` says of itself; it is not run."""
    from internimage.exporting.opening import read_document  # the runtimes take long to import

    document = read_document(path)
    written = dict(document.written)
    return {
        "task": document.description.task,
        **describe_config(document.config),
        "dtypes": [str(written.pop("dtype", "float32"))],
        "notes": written,
        "graph": to_plain(document.description),
        "files": describe_files(path),
    }


def describe_files(path: Path) -> list[dict[str, Any]]:
    """Return path, size and SHA-256 of a file, or of each weight file in a folder."""
    from internimage.checkpoints.download import sha256  # the Hub's client takes long to import

    inside = sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES) if path.is_dir() else [path]
    return [{"path": str(file), "bytes": file.stat().st_size, "sha256": sha256(file)} for file in inside]
