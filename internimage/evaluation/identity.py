"""What an evaluation belongs to, so that a cut one goes on with the same model and data only."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import torch
from torch import nn

from internimage.data import PictureDataset, Unreadable, read_sample

# Values of each tensor, and samples of a data set, that go into a fingerprint.
SAMPLED_VALUES, SAMPLED_PICTURES = 1024, 16


def model_fingerprint(model: nn.Module) -> str:
    """Return a text that differs between models: of their settings, and of some values of every tensor."""
    digest = hashlib.sha256(str(getattr(model, "config", "")).encode())
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)][:SAMPLED_VALUES]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def data_fingerprint(dataset: PictureDataset[Any]) -> str:
    """Return a text that differs between data sets: of their classes, their length, and the names of some pictures."""
    digest = hashlib.sha256(repr((dataset.class_names, len(dataset))).encode())
    step = max(1, len(dataset) // SAMPLED_PICTURES)
    for index in range(0, len(dataset), step):
        entry = read_sample(dataset, index)
        digest.update((entry.reason if isinstance(entry, Unreadable) else entry.name).encode())
    return digest.hexdigest()
