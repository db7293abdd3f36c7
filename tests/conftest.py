"""What every test shares: fixed seeds and poisoned uninitialised memory."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty` and its kin return with NaN, so that an unwritten output cannot pass a comparison."""

    def poison(name: str) -> None:
        original = getattr(torch, name)

        def filled(*args: object, **kwargs: object) -> torch.Tensor:
            tensor = original(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() and tensor.device.type != "meta" else tensor

        monkeypatch.setattr(torch, name, filled)

    for name in ("empty", "empty_like"):
        poison(name)
