"""Layers that see the whole batch where several processes share it.

Batch norms take mean and variance of the images of all processes; random layers draw for all images and keep what
belongs to their own, so that the number of processes changes nothing.

Shape legend: N images of this process, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from internimage import parallel


class _Sum(torch.autograd.Function):
    """Sum over processes, of which each adds its own gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device (torch's own needs an accelerator)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        ones = x.new_tensor([x.numel() / x.shape[1]])
        sums: Tensor = _Sum.apply(torch.cat([x.sum(dim=(0, 2, 3)), ones]))  # type: ignore[assignment]  # of autograd
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centered = x - mean.view(-1, 1, 1)
        squares: Tensor = _Sum.apply(centered.square().sum(dim=(0, 2, 3)))  # type: ignore[assignment]  # of autograd
        variance = squares / count
        self._follow(mean.detach(), (squares / (count - 1).clamp(min=1)).detach())
        scale = (variance + self.eps).rsqrt() * self.weight.to(x.dtype)
        return (centered * scale.view(-1, 1, 1) + self.bias.to(x.dtype).view(-1, 1, 1)).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running averages."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class WholeStochasticDepth(StochasticDepth):
    """Stochastic depth, drawn for the images of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, ...) to the same shape."""
        if not self.training or self.p == 0.0:
            return input
        return input * parallel.kept(input, (1,) * (input.ndim - 1), self.p, dtype=input.dtype)


class WholeDropout2d(nn.Dropout2d):
    """Dropout of whole channels, drawn for the images of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        if not self.training or self.p == 0.0:
            return input
        return input * parallel.kept(input, (input.shape[1], 1, 1), self.p, dtype=input.dtype)


class WholeDropout(nn.Dropout):
    """Dropout, drawn for the images of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, ...) to the same shape."""
        if not self.training or self.p == 0.0:
            return input
        return input * parallel.kept(input, tuple(input.shape[1:]), self.p, dtype=input.dtype)


_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: WholeBatchNorm,
    StochasticDepth: WholeStochasticDepth,
    nn.Dropout2d: WholeDropout2d,
    nn.Dropout: WholeDropout,
}


def see_whole_batch(model: nn.Module, device: torch.device) -> None:
    """Let the layers of a model that depend on the batch see that of all processes; its parameters stay the same ones.

    Args:
        model: what is trained; changed in place.
        device: where; torch's own batch norm of many processes serves accelerators.
    """
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        for kind, twin in _TWINS.items():
            if isinstance(module, kind) and not isinstance(module, nn.SyncBatchNorm):
                module.__class__ = twin
