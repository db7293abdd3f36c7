"""One-to-one matching of least total cost.

Shape legend: R rows (queries), T columns (targets).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def match_least_cost(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Pair rows with columns, each at most once and as many as possible, so that the sum of costs is least.

    Args:
        cost: (R, T) finite costs on any device; the matching runs on the CPU in float64.

    Returns:
        Row and column indices of the min(R, T) pairs, int64 on the CPU, ascending by row.

    Raises:
        ValueError: the matrix is not two-dimensional or a cost is not finite.

    Source: Jonker and Volgenant, "A shortest augmenting path algorithm", Computing 38, 1987.

    Example:
        >>> rows, columns = match_least_cost(torch.tensor([[4.0, 1.0], [2.0, 9.0], [3.0, 3.0]]))
        >>> rows.tolist(), columns.tolist()
        ([0, 1], [1, 0])
    """
    if cost.ndim != 2:
        raise ValueError(f"cost must be a matrix (rows, columns), given {tuple(cost.shape)}")
    matrix = cost.detach().cpu().double().numpy()
    if not np.isfinite(matrix).all():
        raise ValueError("costs must be finite; NaN or infinity usually means that training diverged")
    is_tall = matrix.shape[0] > matrix.shape[1]
    partner = _match_rows(matrix.T if is_tall else matrix)
    rows, columns = np.arange(len(partner)), partner
    if is_tall:
        order = np.argsort(partner)
        rows, columns = partner[order], order
    return torch.from_numpy(np.ascontiguousarray(rows)), torch.from_numpy(np.ascontiguousarray(columns))


def _match_rows(cost: np.ndarray) -> np.ndarray:
    """Return the column of every row of a matrix with no more rows than columns."""
    num_rows, num_columns = cost.shape
    row_price, column_price = np.zeros(num_rows), np.zeros(num_columns)
    row_of = np.full(num_columns, -1)
    column_of = np.full(num_rows, -1)
    for first in range(num_rows):
        distance = np.full(num_columns, np.inf)  # of the shortest alternating path from `first` to each column
        previous = np.full(num_columns, -1)  # row in front of a column on that path
        is_open = np.ones(num_columns, dtype=bool)
        row, reached = first, 0.0
        visited_rows = [first]
        while True:
            along = reached + cost[row] - row_price[row] - column_price
            is_shorter = is_open & (along < distance)
            distance[is_shorter] = along[is_shorter]
            previous[is_shorter] = row
            column = int(np.argmin(np.where(is_open, distance, np.inf)))
            reached = distance[column]
            is_open[column] = False
            if row_of[column] < 0:
                break
            row = int(row_of[column])
            visited_rows.append(row)
        row_price[first] += reached
        for visited in visited_rows[1:]:
            row_price[visited] += reached - distance[column_of[visited]]
        closed = ~is_open
        column_price[closed] -= reached - distance[closed]
        while True:  # flip the path
            row = int(previous[column])
            row_of[column] = row
            column, column_of[row] = column_of[row], column
            if row == first:
                break
    return column_of
