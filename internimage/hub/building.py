"""From a configuration and an open checkpoint to a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from internimage import tasks
from internimage.backbones import BackboneConfig
from internimage.backbones.original.settings import backbone_from_settings
from internimage.backbones.original.shapes import infer_backbone
from internimage.checkpoints.catalog import info
from internimage.checkpoints.checkpoint import backbone_of
from internimage.checkpoints.fill import check_description, fill
from internimage.checkpoints.foreign import about
from internimage.checkpoints.rename import to_ours
from internimage.data.images.normalize import for_channels
from internimage.flow import Checkpoint, Network, TaskConfig
from internimage.hub.opening import Opened

Model = TypeVar("Model", bound=Network)


def filled(
    build: Callable[[], Model],
    config: TaskConfig | BackboneConfig,
    checkpoint: Checkpoint,
    *,
    new_classes: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> Model:
    """Build a model with the weights of a checkpoint, without memory of its own first.

    Args:
        build: makes the model.
        config: what it makes; a bare backbone takes its part of the checkpoint.
        checkpoint: the weights.
        new_classes: start the layers whose rows are the classes afresh, see `fill`.
        dtype: floating type of the model, None for the file's.
        device: where the model goes.
    """
    if isinstance(config, BackboneConfig) and not isinstance(checkpoint.config, BackboneConfig):
        checkpoint = backbone_of(checkpoint)
    with about(checkpoint.source):
        names = to_ours({key: key for key in checkpoint.shapes}, tasks.key_rules(config))
        check_description(config, checkpoint)
        with torch.device("meta"):
            model = build()
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
