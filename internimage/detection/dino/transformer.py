"""The transformer of DINO: an encoder over the maps, the choice of queries, a decoder over the queries.

Shape legend: N images, S cells of all levels, L levels, Q queries, C channels, H W map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.detection.config import DINOConfig
from internimage.layers.attention import Attention
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.feed_forward import FeedForward
from internimage.layers.fused import add_norm, feed_forward_norm
from internimage.layers.position import box_position, padded_sine_position

# Side of the proposal of a cell of the finest level, as a fraction of the image; it doubles from level to level.
PROPOSAL_SIDE = 0.05
LOWEST, HIGHEST = 0.01, 0.99
# Limit of the inverse sigmoid: boxes stay this far from the border of 0..1.
BOX_EPS = 1e-3


class Memory(NamedTuple):
    """The maps of all levels, one after the other, as the decoder sees them."""

    cells: Tensor  # (N, S, C)
    padding: Tensor  # (N, S) bool, True where a cell is padding
    valid: tuple[Tensor, ...]  # (N, H, W) bool of each level, False where a cell is padding
    valid_ratios: Tensor  # (N, L, 2) fraction of width and height that is no padding

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every level."""
        return [(v.shape[1], v.shape[2]) for v in self.valid]


class SlicedFeedForward(nn.Module):
    """The same function as `FeedForward`, its hidden width computed in slices, whose number must divide it."""

    def __init__(self, channels: int, hidden_channels: int, slices: int) -> None:
        super().__init__()
        width = hidden_channels // slices
        first = [nn.Linear(channels, width) for _ in range(slices)]
        second = [nn.Linear(width, channels, bias=False) for _ in range(slices)]
        self.fc1, self.fc2 = nn.ModuleList(first), nn.ModuleList(second)
        self.bias = nn.Parameter(torch.zeros(channels))
        for layer in (*first, *second):
            nn.init.xavier_uniform_(layer.weight)
        for layer in first:
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        total = self.bias.expand(x.shape)
        for first, second in zip(self.fc1, self.fc2, strict=True):
            total = total + second(F.relu(first(x), inplace=True))
        return total


def build_feed_forward(config: DINOConfig) -> nn.Module:
    """Return the feed-forward part of a layer."""
    if config.feedforward_slices == 1:
        return FeedForward(config.channels, config.feedforward_channels)
    return SlicedFeedForward(config.channels, config.feedforward_channels, config.feedforward_slices)


def build_deform_attention(config: DINOConfig, backend: str) -> MSDeformAttention:
    """Return the deformable attention of a layer."""
    levels, points = config.num_levels, config.num_points
    return MSDeformAttention(config.channels, config.num_heads, num_levels=levels, num_points=points, backend=backend)


class DINOEncoderLayer(nn.Module):
    """Deformable attention of every cell over all levels, then the feed-forward part; norms follow the sums."""

    def __init__(self, config: DINOConfig, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.attention = build_deform_attention(config, backend)
        self.feed_forward = build_feed_forward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(2))

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, memory: Memory) -> Tensor:
        """Map (N, S, C) cells to (N, S, C)."""
        attended = self.attention(x + position, x, reference, memory.shapes, padding=memory.padding)
        x = add_norm(x, attended, self.norms[0], backend=self.backend)
        return feed_forward_norm(x, self.feed_forward, self.norms[1], backend=self.backend)


class DINODecoderLayer(nn.Module):
    """Attention among the queries, deformable attention over the maps, the feed-forward part."""

    def __init__(self, config: DINOConfig, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.self_attention = Attention(config.channels, config.num_heads)
        self.cross_attention = build_deform_attention(config, backend)
        self.feed_forward = build_feed_forward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(3))

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, memory: Memory, allowed: Tensor | None) -> Tensor:
        """Map (N, Q, C) queries to (N, Q, C); `allowed` (1, Q, Q) tells which query may look at which."""
        placed = x + position
        x = add_norm(x, self.self_attention(placed, placed, x, allowed=allowed), self.norms[0], backend=self.backend)
        attended = self.cross_attention(x + position, memory.cells, reference, memory.shapes, padding=memory.padding)
        x = add_norm(x, attended, self.norms[1], backend=self.backend)
        return feed_forward_norm(x, self.feed_forward, self.norms[2], backend=self.backend)


class DINOTransformer(nn.Module):
    """Encoder and decoder of DINO with the embeddings between them."""

    def __init__(self, config: DINOConfig, *, backend: str = "auto") -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.level_embedding = nn.Parameter(torch.empty(config.num_levels, channels))
        self.encoder = nn.ModuleList(DINOEncoderLayer(config, backend) for _ in range(config.num_encoder_layers))
        self.decoder = nn.ModuleList(DINODecoderLayer(config, backend) for _ in range(config.num_decoder_layers))
        self.decoder_norm = nn.LayerNorm(channels)
        self.position_fc1 = nn.Linear(2 * channels, channels)
        self.position_fc2 = nn.Linear(channels, channels)
        self.proposal_fc = nn.Linear(channels, channels)
        self.proposal_norm = nn.LayerNorm(channels)
        self.query_embedding = nn.Embedding(config.num_queries, channels)
        nn.init.normal_(self.level_embedding)
        for layer in (self.position_fc1, self.position_fc2, self.proposal_fc, self.query_embedding):
            nn.init.xavier_uniform_(layer.weight)

    def encode(self, maps: Sequence[Tensor], valid_hw: Tensor, input_hw: tuple[int, int]) -> Memory:
        """Let every cell of L levels (N, C, H, W), fine to coarse, look around.

        `valid_hw` (N, 2) are sizes before padding to `input_hw`, in pixels.
        """
        valid = tuple(_valid_cells((x.shape[2], x.shape[3]), valid_hw, input_hw) for x in maps)
        ratios = [torch.stack([v[:, 0].float().mean(dim=1), v[:, :, 0].float().mean(dim=1)], dim=1) for v in valid]
        cells = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        channels, temperature = self.config.channels, self.config.position_temperature
        parts = [
            padded_sine_position(v, channels, temperature=temperature).flatten(1, 2).to(cells.dtype) for v in valid
        ]
        position = torch.cat([part + level for part, level in zip(parts, self.level_embedding, strict=True)], dim=1)
        padding = torch.cat([~v.flatten(1) for v in valid], dim=1)
        memory = Memory(cells, padding, valid, torch.stack(ratios, dim=1))
        reference = _cell_references(memory)
        for layer in self.encoder:
            cells = layer(cells, position, reference, memory)
        return memory._replace(cells=cells)

    def propose(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return (N, S, C) cells for the heads, and the (N, S, 4) proposal of each, from which queries are chosen.

        Proposals are inverse sigmoids of center and size; infinite where a cell is padding or too close to the border.
        """
        proposals = torch.cat([_level_proposals(v, i) for i, v in enumerate(memory.valid)], dim=1)  # (N, S, 4)
        is_open = ((proposals > LOWEST) & (proposals < HIGHEST)).all(dim=-1, keepdim=True)
        is_open &= ~memory.padding[..., None]
        logits = (proposals / (1 - proposals)).log().masked_fill(~is_open, math.inf)
        cells = memory.cells.masked_fill(~is_open, 0.0)
        return self.proposal_norm(self.proposal_fc(cells)), logits

    def decode(
        self,
        queries: Tensor,
        reference: Tensor,
        memory: Memory,
        regressors: Sequence[nn.Module],
        *,
        allowed: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Refine queries and their boxes layer by layer.

        Args:
            queries: (N, Q, C).
            reference: (N, Q, 4) start boxes: center and size, 0..1.
            memory: of `encode`.
            regressors: one for each layer, changes of boxes.
            allowed: (1, Q, Q) bool, which query may look at which, or None for all.

        Returns:
            The normalized queries behind each layer, and the boxes in front of each layer and behind the last; the
            boxes keep their gradient with respect to the layer that made them ("look forward twice").
        """
        hidden, references = [], [reference]
        scale = torch.cat([memory.valid_ratios, memory.valid_ratios], dim=-1)[:, None]  # (N, 1, L, 4)
        for layer, regressor in zip(self.decoder, regressors, strict=True):
            placed = reference[:, :, None] * scale  # (N, Q, L, 4)
            sine = box_position(placed[:, :, 0], 2 * self.config.channels).to(queries.dtype)
            position = self.position_fc2(F.relu(self.position_fc1(sine)))
            queries = layer(queries, position, placed.to(queries.dtype), memory, allowed)
            refined = (regressor(queries).float() + inverse_sigmoid(reference)).sigmoid()
            reference = refined.detach()
            hidden.append(self.decoder_norm(queries))
            references.append(refined)
        return hidden, references


def inverse_sigmoid(x: Tensor, *, eps: float = BOX_EPS) -> Tensor:
    """Return the logit of values in 0..1, whose two sides are kept at least `eps` from zero."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def _valid_cells(size_hw: tuple[int, int], valid_hw: Tensor, input_hw: tuple[int, int]) -> Tensor:
    """Return (N, H, W) bool: the nearest pixel of a cell belongs to the image."""
    inside: list[Tensor] = []
    for axis, (cells, pixels) in enumerate(zip(size_hw, input_hw, strict=True)):
        nearest = (torch.arange(cells, device=valid_hw.device, dtype=torch.float32) * (pixels / cells)).floor()
        inside.append(nearest[None] < valid_hw[:, axis, None])
    return inside[0][:, :, None] & inside[1][:, None, :]


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """Return the (N, H, W, 2) places (x, y) of columns (N, W) and rows (N, H)."""
    return torch.stack([x[:, None].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], dim=-1)


def _cell_references(memory: Memory) -> Tensor:
    """Return the (N, S, L, 2) center of every cell in every level, as fractions of the padded maps."""
    centers: list[Tensor] = []
    for (height, width), ratio in zip(memory.shapes, memory.valid_ratios.unbind(1), strict=True):
        y, x = (torch.arange(side, device=ratio.device, dtype=ratio.dtype) + 0.5 for side in (height, width))
        y, x = y[None] / (ratio[:, 1:] * height), x[None] / (ratio[:, :1] * width)  # (N, H), (N, W)
        centers.append(_grid(x, y).flatten(1, 2))
    return torch.cat(centers, dim=1)[:, :, None] * memory.valid_ratios[:, None]


def _level_proposals(valid: Tensor, level: int) -> Tensor:
    """Return the (N, H * W, 4) proposals of a level: around each cell, as fractions of the image without padding."""
    height, width = valid.shape[1:]
    heights, widths = valid[:, :, 0].sum(dim=1), valid[:, 0].sum(dim=1)  # (N,)
    y, x = (torch.arange(side, device=valid.device, dtype=torch.float32) + 0.5 for side in (height, width))
    centers = _grid(x[None] / widths[:, None], y[None] / heights[:, None])
    return torch.cat([centers, torch.full_like(centers, PROPOSAL_SIDE * 2.0**level)], dim=-1).flatten(1, 2)
