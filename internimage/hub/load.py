"""`internimage.load`: from the name of a checkpoint, or a file, to a model that is ready to predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from internimage import tasks
from internimage.backbones import BackboneConfig
from internimage.checkpoints.checkpoint import backbone_of, shapes_of, unpack
from internimage.checkpoints.fill import check_description, fill
from internimage.checkpoints.foreign import about
from internimage.checkpoints.rename import to_ours
from internimage.data.images.normalize import for_channels
from internimage.exporting.suffixes import suffix_of
from internimage.flow import Checkpoint, Network, Settings, TaskConfig, TaskModel
from internimage.hub.loaded import LoadedModel
from internimage.hub.opening import open_checkpoint

Model = TypeVar("Model", bound=Network)


def load(
    name_or_path: str | PathLike[str],
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    value_range: tuple[float, float] | None = None,
    ema: bool | None = None,
    settings: Settings | None = None,
    cache_dir: str | PathLike[str] | None = None,
    offline: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    backend: str = "auto",
) -> LoadedModel:
    """Return a checkpoint as a model ready to predict: architecture, weights, preprocessing and class names.

    Args:
        name_or_path: a name of `list_models`, a weight file (`.safetensors`, `.pth`), a Transformers folder, or a file
            that `export` wrote, which runs in its runtime on the CPU; see docs/deployment.md.
        num_classes: None keeps the checkpoint's; 1000 of 21,841 takes the rows of the same classes; any other number
            starts the last layer afresh.
        in_chans: channels of the images, None for the checkpoint's. For another number than its 3 (or 1) the first
            layer is adapted, see `checkpoints.fill.adapt_first_layer`.
        value_range: values of black and white in images of more than 8 bits, for example (0, 4095) for 12 bits; None
            keeps the checkpoint's, as a rule 0..65535 for 16 bits.
        ema: True for the averaged weights of a training file, False for the raw ones, None for the raw ones if any.
        settings: original settings of the architecture, for a file that does not state it and is of no published size.
        cache_dir: where downloads are kept, None for the user's cache.
        offline: use no network.
        dtype: floating type of the model, None for the file's.
        device: where the model goes.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Returns:
        The model in evaluation mode: a `Classifier`, a detector (`RCNN`, `DINO`) or a `Segmentor`. A file of ours that
        holds a bare backbone gives an `InternImage`; typed code opens it by `create(size, weights=file).eval()`.

    Raises:
        UnknownName: no such checkpoint; the message suggests the nearest ones.
        FileNotFoundError: the file is not there, or cannot be downloaded.
        ValueError: the file is damaged, or its model is not built by this release.
        CheckpointMismatch: the weights do not fit; lists every difference.

    Example:
        >>> import tempfile
        >>> from internimage import create, save_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = create("classifier", backbone="internimage_pico", class_names=["cat", "dog"])
        ...     path = save_model(model, f"{folder}/pets.safetensors")
        ...     load(path).config.class_names
        ('cat', 'dog')
    """
    if suffix_of(name_or_path) is not None:
        own = {"dtype": None if dtype == torch.float32 else dtype, "backend": None if backend == "auto" else backend}
        asked = {"num_classes": num_classes, "in_chans": in_chans, "value_range": value_range, "ema": ema, **own}
        refuse({**asked, "settings": settings}, "an exported file, which is as it was written,")
        return cast("LoadedModel", _opened_file(name_or_path, torch.device(device)))
    checkpoint, row = open_checkpoint(name_or_path, ema=ema, cache_dir=cache_dir, offline=offline, whole=True)
    if isinstance(checkpoint.config, BackboneConfig):
        refuse({"num_classes": num_classes, "settings": settings, "value_range": value_range}, "a bare backbone")
        bare, new_classes = checkpoint.config, False
        config = bare if in_chans is None else dataclasses.replace(bare, in_chans=in_chans)
    else:
        with about(checkpoint.source):
            stored = tasks.recognize(checkpoint, row, settings)
        new_classes = num_classes is not None and num_classes != stored.num_classes
        config = _reading_as(stored if num_classes is None else stored.with_classes(num_classes), in_chans, value_range)
    build = partial(tasks.build, config, backend=backend)
    model = filled(build, config, checkpoint, new_classes=new_classes, dtype=dtype, device=device)
    return cast("LoadedModel", model.eval())  # a bare backbone is rare enough to stay out of the types


def _opened_file(path: str | PathLike[str], device: torch.device) -> Network:
    """Open a file that `export` wrote.

    Raises:
        ValueError: it is wanted on another device than the CPU, or cannot be opened, see `open_exported`.
    """
    from internimage.exporting.opening import open_exported  # torch's exporter takes long to import

    if device.type != "cpu":
        raise ValueError(f"{path} is an exported file, which gets its inputs on the CPU; given device={str(device)!r}")
    return open_exported(path)


def from_original(settings: Settings, state: Mapping[str, Tensor], *, backend: str = "auto") -> TaskModel[Any]:
    """Build a model from original settings and original weights in memory; the tensors are used, not copied.

    Args:
        settings: arguments of the original classifier's constructor, its nested configuration or a `config.json`; or
            the original's model dictionary of a detector or a segmentor, or a configuration with it under "model".
        state: original names and tensors, in any published container.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Returns:
        The model in evaluation mode.

    Raises:
        ValueError: a setting is missing or not supported.
        CheckpointMismatch: the weights do not fit the settings; lists every difference.
    """
    tensors, is_part, _ = unpack(state, "the state dict", None, tasks.known())
    checkpoint = Checkpoint("the state dict", shapes_of(tensors), lambda: tensors, in_memory=True, is_part=is_part)
    config = tasks.recognize(checkpoint, settings=settings)
    build = partial(tasks.of_config(config).build, config, backend=backend)
    return filled(build, config, checkpoint, dtype=None).eval()


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


def _reading_as(config: TaskConfig, in_chans: int | None, value_range: tuple[float, float] | None) -> TaskConfig:
    """Return the configuration for images of other channels or values; None keeps what it has."""
    backbone, preprocess = config.backbone, config.preprocess
    if in_chans is not None and in_chans != backbone.in_chans:
        backbone, preprocess = dataclasses.replace(backbone, in_chans=in_chans), for_channels(preprocess, in_chans)
    if value_range is not None:
        preprocess = dataclasses.replace(preprocess, value_range=value_range)
    return dataclasses.replace(config, backbone=backbone, preprocess=preprocess)


def refuse(arguments: Mapping[str, object], what: str) -> None:
    """Raise if an argument is given that means nothing here.

    Raises:
        ValueError: one is given.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"{what} takes no {', '.join(given)}")
