"""The public operator `ms_deform_attn`, its checks, and its registration with torch.

Shapes: N images, S pixels of all levels, M heads, D channels of a head, L levels, Q queries, P points of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from internimage.ops.backends import check_name
from internimage.ops.deform_attn import kernel_cpp, reference
from internimage.ops.deform_attn.levels import LEVELS_SCHEMA, Levels
from internimage.ops.registration import register_operator
from internimage.ops.runtime.triton.support import standard_backends
from internimage.ops.sampling import autocast, check_companion, expect_shape


def _output_shape(value: Tensor, locations: Tensor, *others: object) -> tuple[int | torch.SymInt, ...]:
    return (*locations.shape[:2], value.shape[2] * value.shape[3])


_run = register_operator(
    "ms_deform_attn",
    tensors=("value", "sampling_locations", "attention_weights"),
    settings=LEVELS_SCHEMA,
    make_settings=Levels,
    output_shape=_output_shape,
    implementations=standard_backends(kernel_cpp, "internimage.ops.deform_attn.kernel_triton", reference),
    exact=reference.exact,
)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    normalized: bool = True,
    softmax: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Sum, for every query and head, weighted bilinear samples of several feature maps.

    Locations and sums are computed in float32 (float64 for float64) whatever the dtype. A location of 0 is the map's
    left or top edge and 1 its right or bottom edge, so the center of pixel i of W lies at (i + 0.5) / W; samples
    outside a map count as zero. Under autocast the three tensors are converted to the autocast dtype.

    Args:
        value: (N, S, M, D) pixels of all levels one after the other, each level row by row; float16, bfloat16, float32
            or float64.
        spatial_shapes: (height, width) of every level; their products sum to S. A list costs no synchronization of a
            GPU, a tensor (L, 2) does.
        sampling_locations: (N, Q, M, L, P, 2) as (x, y), 0..1 inside a map.
        attention_weights: (N, Q, M, L, P), already softmaxed over the L*P points; logits when `softmax` is true.
        normalized: false when locations are given in pixels of their level (0..width, 0..height) instead.
        softmax: apply the softmax over each head's L*P weights inside the operator.
        backend: "auto" takes the first that can run; a named one never falls back.

    Returns:
        (N, Q, M*D), same dtype as `value`.

    Raises:
        ValueError: a shape does not fit; the message shows the expected and the given one.
        TypeError: the dtypes differ or are not floating point.
        BackendUnavailable: a named backend cannot run here; the message says why.

    Source: Deformable DETR, section 4.1, https://arxiv.org/abs/2010.04159; checked against mmcv 2.2.0.

    Example:
        >>> value, locations = torch.rand(1, 20, 2, 8), torch.rand(1, 5, 2, 2, 4, 2)
        >>> ms_deform_attn(value, [(4, 4), (2, 2)], locations, torch.full((1, 5, 2, 2, 4), 1 / 8)).shape
        torch.Size([1, 5, 16])
    """
    rows = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    # Symbolic sides stay so: a compiler or an exporter would make constants of whole numbers.
    sizes = tuple(side if isinstance(side, torch.SymInt) else int(side) for row in rows for side in row)
    levels = Levels(sizes, bool(normalized), bool(softmax))
    if not sizes or len(sizes) % 2 or min(sizes) < 1:
        raise ValueError(f"spatial_shapes must hold (height, width) >= 1 of every level, given {spatial_shapes!r}")
    value, sampling_locations, attention_weights = autocast(value, sampling_locations, attention_weights)
    _check(value, levels, sampling_locations, attention_weights)
    check_name("ms_deform_attn", backend)
    return _run((value, sampling_locations, attention_weights), levels, backend)


def _check(value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> None:
    """Raise unless the tensors fit one another and the levels."""
    if value.dim() != 4:
        raise ValueError(f"value must have 4 dimensions (N, S, M, D), given shape {tuple(value.shape)}")
    if not value.is_floating_point():
        raise TypeError(f"value must be a floating-point tensor, given {value.dtype}")
    if locations.dim() != 6:
        raise ValueError(f"sampling_locations must have shape (N, Q, M, L, P, 2), given {tuple(locations.shape)}")
    n, _, heads, channels = value.shape
    pixels = sum(height * width for height, width in levels.shapes)
    expect_shape("value", value, (n, pixels, heads, channels), f"(N, sum of {levels.shapes}, M, D)")
    shape = (n, locations.shape[1], heads, len(levels.shapes), locations.shape[4])
    expect_shape("sampling_locations", locations, (*shape, 2), "(N, Q, M, L, P, 2)")
    expect_shape("attention_weights", weights, shape, "(N, Q, M, L, P)")
    if min(heads, channels, shape[4]) < 1:
        raise ValueError(f"heads, channels and points must be at least 1, given {heads}, {channels} and {shape[4]}")
    check_companion("sampling_locations", locations, value)
    check_companion("attention_weights", weights, value)
