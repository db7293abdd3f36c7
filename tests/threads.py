"""How many threads torch works with in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For the files that import it. Small work needs no team of threads, which mostly waits on a busy machine."""
    with torch_threads(1):
        yield


def assert_same_bits(function: Callable[[], Sequence[Tensor]], threads: Sequence[int] = (1, 2, 3, 7)) -> None:
    """What a function returns is the same with every number of threads, bit for bit."""
    results = []
    for count in threads:
        with torch_threads(count):
            results.append(function())
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
