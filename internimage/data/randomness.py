"""Random numbers that depend on the position in a run alone, so that a resumed run draws the same ones."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derived_seed(*keys: int) -> int:
    """Mix non-negative numbers (run seed, epoch, image, ...) into one 32-bit seed.

    Example:
        >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(keys).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed python's, numpy's and torch's CPU generators, from which augmentation libraries draw."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators within the block, see `seed_generators`, and restore them after it."""
    with kept_generators():
        seed_generators(seed)
        yield


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Restore python's, numpy's and torch's CPU generators after the block."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
