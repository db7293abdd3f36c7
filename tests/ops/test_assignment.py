from __future__ import annotations

import itertools
import sys

import pytest
import torch

from internimage.errors import MissingExtra
from internimage.ops.assignment import match_least_cost


def cheapest(cost: torch.Tensor) -> float:
    """Least total cost by trying every pairing."""
    rows, columns = cost.shape
    if rows > columns:
        return cheapest(cost.T)
    return min(
        sum(float(cost[i, j]) for i, j in enumerate(order)) for order in itertools.permutations(range(columns), rows)
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 6), (6, 3), (5, 4), (6, 6)])
def test_no_pairing_is_cheaper(shape: tuple[int, int]) -> None:
    for _ in range(5):
        cost = torch.randn(shape, dtype=torch.float64)
        rows, columns = match_least_cost(cost)
        assert len(rows) == len(columns) == min(shape)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
        assert rows.tolist() == sorted(rows.tolist())
        assert float(cost[rows, columns].sum()) == pytest.approx(cheapest(cost))


def test_equal_costs_and_empty_sides() -> None:
    rows, columns = match_least_cost(torch.zeros(4, 2))
    assert sorted(columns.tolist()) == [0, 1] and len(rows) == 2
    for shape in ((0, 3), (3, 0), (0, 0)):
        rows, columns = match_least_cost(torch.zeros(shape))
        assert len(rows) == len(columns) == 0


def test_bad_costs_are_refused() -> None:
    with pytest.raises(ValueError, match="matrix"):
        match_least_cost(torch.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        match_least_cost(torch.tensor([[float("nan")]]))


def test_without_scipy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtra, match=r"internimage\[train\]"):
        match_least_cost(torch.zeros(2, 2))
