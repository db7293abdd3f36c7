"""Multi-scale deformable attention with its projections.

Shape legend: N images, Q queries, S pixels of all levels, C channels, M heads, L levels, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from internimage.ops import ms_deform_attn


class MSDeformAttention(nn.Module):
    """Each query looks at a few learned places around its reference in every level.

    Args:
        channels: width C of queries, values and output.
        num_heads: attention heads M; must divide C.
        num_levels: levels L.
        num_points: points P of a head in a level.
        softmax: normalize the weights of a head over its L * P points; False takes them as they are.
        backend: operator backend, see `internimage.ops.ms_deform_attn`.

    Source: Deformable DETR, section 4.1, arXiv 2010.04159.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        num_levels: int,
        num_points: int = 4,
        softmax: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads must divide channels: {channels} channels, {num_heads} heads")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.softmax = softmax
        self.backend = backend
        points = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(channels, 2 * points)
        self.attention_weights = nn.Linear(channels, points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Apply the published initialization: heads look in different directions, points lie ever further out."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)  # (M, 2)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        grid = directions[:, None, None] * steps[:, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(grid.expand(-1, self.num_levels, -1, -1).flatten())
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        reference: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        *,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Attend; the shortcut around this layer is the caller's.

        Args:
            query: (N, Q, C), with its position added.
            value: (N, S, C) pixels of all levels one after the other, each row by row.
            reference: (N, Q, L, 2) centers (x, y) or (N, Q, L, 4) boxes (center x, center y, width, height), 0..1 of
                the map; offsets from a center are in pixels of the level, from a box in fractions of its size.
            spatial_shapes: (height, width) of every level.
            padding: (N, S) bool, True where a value is padding; such values count as zero.

        Returns:
            (N, Q, C).
        """
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        values = self.value_proj(value)
        if padding is not None:
            values = _without_padding(values, padding)
        offsets = self.sampling_offsets(query).unflatten(-1, (heads, -1))  # (N, Q, M, L * P * 2)
        weights = self.attention_weights(query).unflatten(-1, (heads, levels, points))
        is_box = reference.shape[-1] == 4
        centers = reference[..., :2]
        if is_box:
            sizes = self._for_each_point(reference[..., 2:] * (0.5 / points))
            locations = torch.addcmul(self._for_each_point(centers), offsets, sizes)
        else:  # in pixels, which spares a division of every offset
            sizes_wh = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=centers.dtype, device=centers.device)
            locations = offsets + self._for_each_point(centers * sizes_wh)
        locations = locations.unflatten(-1, (levels, points, 2))
        values = values.unflatten(-1, (heads, -1))
        return self.output_proj(self._attend(values, spatial_shapes, locations, weights, normalized=is_box))

    def _for_each_point(self, places: Tensor) -> Tensor:
        """Repeat (N, Q, L, 2) for every point: (N, Q, 1, L * P * 2), so that sums over heads run along memory."""
        return places[..., None, :].expand(-1, -1, -1, self.num_points, -1).flatten(2)[:, :, None]

    def _attend(
        self,
        values: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
        *,
        normalized: bool,
    ) -> Tensor:
        """Run the operator, at least in float32: in half precision a location of a large map is off by whole pixels."""
        dtype = torch.promote_types(values.dtype, torch.float32)
        with _without_autocast(values.device.type):
            attended = ms_deform_attn(
                values.to(dtype),
                spatial_shapes,
                locations.to(dtype),
                weights.to(dtype),
                normalized=normalized,
                softmax=self.softmax,
                backend=self.backend,
            )
        return attended.to(values.dtype)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Switch autocast off; not every type of device, meta for one, has it."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _without_padding(values: Tensor, padding: Tensor) -> Tensor:
    """Set (N, S, C) values to zero where `padding` (N, S) is true; in place without gradients."""
    if torch.is_grad_enabled():
        return values.masked_fill(padding[..., None], 0.0)
    return values.masked_fill_(padding[..., None], 0.0)
