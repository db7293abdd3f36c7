"""The models that `internimage bench` measures: with the weights at hand, or with random ones that have work to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn

from internimage import tasks
from internimage.backbones import VARIANTS
from internimage.checkpoints.catalog import BUNDLED, info
from internimage.checkpoints.local import local_copy
from internimage.data.images.normalize import IMAGENET_MEAN, IMAGENET_STD
from internimage.data.images.read import read_rgb
from internimage.exporting.file_model import FileModel
from internimage.flow import Network, TaskModel
from internimage.hub.create import create
from internimage.hub.inspect import row_config
from internimage.hub.load import load
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.deform_conv import DCNv3, DCNv4

RANDOM = "random"
BACKBONE_HW = (224, 224)
SCENE = BUNDLED / "pictures" / "closet_scene.jpg"


def model_to_measure(name: str, backend: str) -> tuple[Network, str]:
    """Return the model that MODEL names, and where its weights come from.

    A file is read. A name of the catalog takes the weights that come with this package or lie on this machine; without
    them, and for the name of a size, weights are random, so that nothing is downloaded.

    Raises:
        UnknownName: no such name.
        FileNotFoundError: no such file.
        ValueError: the model is not built by this release.
    """
    if Path(name).exists():
        return load(name, dtype=None, backend=backend), name
    if name in VARIANTS:
        return busy(create(name, backend=backend)), RANDOM
    entry = info(name)
    config = row_config(entry)
    copy = local_copy(entry)
    if copy is not None:
        origin = "of this package" if entry.source == "bundled" else str(copy)
        return load(name, dtype=None, backend=backend, offline=True), origin
    return busy(tasks.of_config(config).build(config, backend=backend)), RANDOM


def usual_hw(network: Network) -> tuple[int, int]:
    """Return height and width of the input that a model was made for."""
    if isinstance(network, FileModel) and network.input_hw is not None:
        return network.input_hw
    return tasks.of_model(network).usual_hw(network.config) if isinstance(network, TaskModel) else BACKBONE_HW


def busy(model: Network) -> Network:
    """Give a model with random weights the work of a trained one, see `Task.set_to_work`."""
    scatter_samples(model.eval())
    if isinstance(model, TaskModel) and (task := tasks.of_model(model)).set_to_work is not None:
        task.set_to_work(model)
    return model


def scatter_samples(network: nn.Module) -> None:
    """Let the offsets of random weights differ from zero, where all samples would lie on pixels."""
    for operator in operators(network):
        for name in ("offset", "mask", "offset_mask", "sampling_offsets"):
            layer = getattr(operator, name, None)
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.1 * layer.in_features**-0.5)


def operators(network: nn.Module) -> list[Any]:
    """Return the deformable operators of a network, whose backend can be exchanged."""
    return [module for module in network.modules() if isinstance(module, DCNv3 | DCNv4 | MSDeformAttention)]


def scene(network: Network, batch_size: int, size_hw: tuple[int, int]) -> Tensor:
    """Return the bundled scene as (batch_size, in_chans, height, width) float32: a detector finds nothing in noise."""
    image = read_rgb(SCENE).resize((size_hw[1], size_hw[0]), Resampling.BILINEAR)
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(*size_hw, 3) / 255
    pixels = ((values - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).permute(2, 0, 1)
    backbone = network.config.backbone if isinstance(network, TaskModel) else network.config
    channels = torch.arange(backbone.in_chans) % 3
    return pixels[channels].expand(batch_size, -1, -1, -1).contiguous()
