"""The states of the random generators that training draws from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from internimage.data.randomness import derived_seed as derived_seed


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed python's, numpy's and torch's CPU generators within the block and restore them after it.

    Augmentation libraries draw from these global generators.
    """
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def generator_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's generators that layers draw from (drop path, dropout)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_generator_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what `generator_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
