"""From a configuration and an open checkpoint to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from internimage import tasks
from internimage.backbones import BackboneConfig, InternImage
from internimage.backbones.original.names import BACKBONE
from internimage.backbones.original.settings import backbone_from_settings
from internimage.backbones.original.shapes import infer_backbone
from internimage.checkpoints.catalog import info
from internimage.checkpoints.checkpoint import backbone_of
from internimage.checkpoints.fill import fill
from internimage.checkpoints.foreign import about, check_description
from internimage.flow import ALL_LEVELS, Checkpoint, RunOptions, TaskConfig, TaskModel
from internimage.hub.opening import Opened

if TYPE_CHECKING:
    from typing_extensions import Unpack


def build_filled(
    config: TaskConfig,
    checkpoint: Checkpoint,
    run: RunOptions,
    *,
    new_classes: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> TaskModel[Any]:
    """Build a model with the weights of a checkpoint, without memory of its own first.

    Args:
        config: the model.
        checkpoint: its weights.
        run: how it runs.
        new_classes: start the layers whose rows are the classes afresh, see `fill`.
        dtype: floating type of the model, None for the file's.
        device: where the model goes.
    """
    task = tasks.of_config(config)
    with about(checkpoint.source):
        check_description(config, checkpoint)
        with torch.device("meta"):
            model = task.build(config, **run)
        rules = task.key_rules[config.kind]
        fill(model, checkpoint, rules, new_classes=new_classes, dtype=dtype, device=device)
    return model


def build_backbone(
    config: BackboneConfig,
    checkpoint: Checkpoint | None,
    *,
    out_indices: tuple[int, ...] = ALL_LEVELS,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    **run: Unpack[RunOptions],
) -> InternImage:
    """Build a bare backbone, fresh or with its part of a checkpoint."""
    if checkpoint is None:
        return InternImage(config, out_indices=out_indices, **run)
    part = checkpoint if isinstance(checkpoint.config, BackboneConfig) else backbone_of(checkpoint)
    with about(checkpoint.source):
        check_description(config, part)
        with torch.device("meta"):
            model = InternImage(config, out_indices=out_indices, **run)
        fill(model, part, BACKBONE, dtype=dtype, device=device)
    return model


def backbone_config(opened: Opened | None) -> BackboneConfig | None:
    """Return the backbone that a checkpoint holds, alone or as a part of a model; None without a checkpoint.

    Raises:
        ValueError: nothing describes it.
    """
    if opened is None:
        return None
    checkpoint, row = opened
    with about(checkpoint.source):
        if checkpoint.config is not None:
            stored = checkpoint.config
            return stored if isinstance(stored, BackboneConfig) else stored.backbone
        published = None if row is None else info(row).backbone_config
        if published is not None and not checkpoint.stated.is_folder:
            return published
        settings = checkpoint.stated.settings
        if settings is not None:
            return backbone_from_settings(settings["model"].get("backbone") or {} if "model" in settings else settings)
        return infer_backbone(backbone_of(checkpoint).shapes, checkpoint.source)[1]


def refuse(arguments: Mapping[str, object], what: str) -> None:
    """Raise if an argument is given that means nothing here.

    Raises:
        ValueError: one is given.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"{what} takes no {', '.join(given)}")
