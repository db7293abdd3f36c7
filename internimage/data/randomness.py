"""Random numbers that depend on the position in a run alone, so that a resumed run draws the same ones."""

from __future__ import annotations

import numpy as np


def derived_seed(*keys: int) -> int:
    """Mix non-negative numbers (run seed, epoch, image, ...) into one 32-bit seed.

    Example:
        >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(keys).generate_state(1)[0])
