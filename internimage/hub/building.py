"""From a configuration and an open checkpoint to a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, overload

import torch

from internimage import tasks
from internimage.backbones import BackboneConfig, InternImage
from internimage.backbones.original.names import BACKBONE
from internimage.backbones.original.settings import backbone_from_settings
from internimage.backbones.original.shapes import infer_backbone
from internimage.checkpoints.catalog import info
from internimage.checkpoints.checkpoint import backbone_of
from internimage.checkpoints.fill import check_description, fill
from internimage.checkpoints.foreign import about
from internimage.checkpoints.rename import to_ours
from internimage.data.images.normalize import for_channels
from internimage.flow import ALL_LEVELS, Checkpoint, RunOptions, TaskConfig, TaskModel
from internimage.hub.opening import Opened

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Filling(TypedDict, total=False):
    """Options of `build_filled`."""

    out_indices: tuple[int, ...]
    new_classes: bool
    dtype: torch.dtype | None
    device: torch.device | str


@overload
def build_filled(
    config: BackboneConfig, checkpoint: Checkpoint, run: RunOptions, **how: Unpack[Filling]
) -> InternImage: ...
@overload
def build_filled(
    config: TaskConfig, checkpoint: Checkpoint, run: RunOptions, **how: Unpack[Filling]
) -> TaskModel[Any]: ...
@overload
def build_filled(
    config: TaskConfig | BackboneConfig, checkpoint: Checkpoint, run: RunOptions, **how: Unpack[Filling]
) -> TaskModel[Any] | InternImage: ...
def build_filled(
    config: TaskConfig | BackboneConfig,
    checkpoint: Checkpoint,
    run: RunOptions,
    *,
    out_indices: tuple[int, ...] = ALL_LEVELS,
    new_classes: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> TaskModel[Any] | InternImage:
    """Build a model with the weights of a checkpoint, without memory of its own first.

    Args:
        config: the model, or a bare backbone, which takes its part.
        checkpoint: its weights.
        run: how it runs.
        out_indices: levels that a bare backbone returns.
        new_classes: start the layers whose rows are the classes afresh, see `fill`.
        dtype: floating type of the model, None for the file's.
        device: where the model goes.
    """
    if isinstance(config, BackboneConfig):
        build, rules = partial(InternImage, config, out_indices=out_indices), BACKBONE
        checkpoint = checkpoint if isinstance(checkpoint.config, BackboneConfig) else backbone_of(checkpoint)
    else:
        task = tasks.of_config(config)
        build, rules = partial(task.build, config), task.key_rules[config.kind]
    with about(checkpoint.source):
        names = to_ours({key: key for key in checkpoint.shapes}, rules)
        check_description(config, checkpoint)
        with torch.device("meta"):
            model = build(**run)
        fill(model, checkpoint, names, new_classes=new_classes, dtype=dtype, device=device)
    return model


def reading_as(config: TaskConfig, in_chans: int | None, value_range: tuple[float, float] | None) -> TaskConfig:
    """Return the configuration for images of other channels or values; None keeps what it has."""
    backbone, preprocess = config.backbone, config.preprocess
    if in_chans is not None and in_chans != backbone.in_chans:
        backbone, preprocess = dataclasses.replace(backbone, in_chans=in_chans), for_channels(preprocess, in_chans)
    if value_range is not None:
        preprocess = dataclasses.replace(preprocess, value_range=value_range)
    return dataclasses.replace(config, backbone=backbone, preprocess=preprocess)


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
