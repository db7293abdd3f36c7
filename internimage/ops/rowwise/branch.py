"""How a residual branch joins the sum."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]
Flat = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float]

BRANCH_SCHEMA = "Tensor? gamma, Tensor? weight, Tensor? bias, Tensor? next_weight, Tensor? next_bias, float eps"


class Branch(NamedTuple):
    """How a branch joins the sum, and what the sum goes through next; a part that is None is left out.

    Args:
        gamma: (C,) scale of the branch.
        norm: weight and bias (C,) of the layer norm of the branch's output.
        next_norm: weight and bias (C,) of the layer norm of the sum.
        eps: epsilon of both norms.
    """

    gamma: Tensor | None = None
    norm: Affine | None = None
    next_norm: Affine | None = None
    eps: float = 1e-6

    @classmethod
    def of(
        cls, *, gamma: Tensor | None = None, norm: nn.LayerNorm | None = None, next_norm: nn.LayerNorm | None = None
    ) -> Branch:
        """Take the parameters of layer norms.

        Raises:
            ValueError: the norms differ in epsilon.

        Example:
            >>> Branch.of(next_norm=nn.LayerNorm(4, eps=1e-5)).eps
            1e-05
        """
        both = [n for n in (norm, next_norm) if n is not None]
        if len(both) == 2 and both[0].eps != both[1].eps:
            raise ValueError(f"both norms must have the same epsilon, given {both[0].eps} and {both[1].eps}")
        return cls(gamma, _affine(norm), _affine(next_norm), both[0].eps if both else 1e-6)

    def flat(self) -> Flat:
        """The tensors one by one and epsilon, in the order of `BRANCH_SCHEMA`."""
        (weight, bias), (next_weight, next_bias) = self.norm or (None, None), self.next_norm or (None, None)
        return self.gamma, weight, bias, next_weight, next_bias, self.eps

    @classmethod
    def from_flat(
        cls,
        gamma: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        next_weight: Tensor | None,
        next_bias: Tensor | None,
        eps: float,
    ) -> Branch:
        """Undo `flat`."""
        return cls(gamma, _pair(weight, bias), _pair(next_weight, next_bias), eps)


def _affine(norm: nn.LayerNorm | None) -> Affine | None:
    return None if norm is None else _pair(norm.weight, norm.bias)


def _pair(weight: Tensor | None, bias: Tensor | None) -> Affine | None:
    return None if weight is None or bias is None else (weight, bias)
