"""What an evaluation belongs to, so that a cut one goes on with the same model and data only."""

from __future__ import annotations

import hashlib
import itertools
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from internimage.data import ImageDataset, Unreadable, read_sample

logger = logging.getLogger(__name__)

# Values of each tensor, and samples of a data set, that go into a fingerprint.
SAMPLED_VALUES, SAMPLED_IMAGES = 1024, 16


def model_fingerprint(model: nn.Module) -> str:
    """Return a text that differs between models: of their settings, and of some values of every tensor."""
    digest = hashlib.sha256(str(getattr(model, "config", "")).encode())
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)][:SAMPLED_VALUES]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def announce(path: Path, done: int, total: int) -> None:
    """Say that an evaluation does not begin at its beginning."""
    if done >= total > 0:
        logger.info("all %d images were measured before: %s; remove it to measure them anew", total, path)
    elif done:
        logger.info("going on after %d of %d images, see %s", done, total, path)


def warn_unchecked(path: Path) -> None:
    """Say that it is not known whether what is kept belongs to the data as they are now."""
    logger.warning(
        "%s was begun by an older release, so it cannot be checked whether images and ground truth are still the same",
        path,
    )


def older_data_fingerprint(dataset: ImageDataset[Any]) -> str:
    """Return the text that older releases kept of a data set: of its classes, its length, some names."""
    digest = hashlib.sha256(repr((dataset.class_names, len(dataset))).encode())
    step = max(1, len(dataset) // SAMPLED_IMAGES)
    for index in range(0, len(dataset), step):
        entry = read_sample(dataset, index)
        digest.update((entry.reason if isinstance(entry, Unreadable) else entry.name).encode())
    return digest.hexdigest()
