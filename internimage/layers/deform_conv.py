"""The operator modules: projections, offsets and weights around a deformable convolution.

Shape legend: N images, H W map, C channels, G groups, K points. Maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from internimage.layers.packed_linear import Packable
from internimage.ops import dcnv3, rowwise

NORM_EPS = 1e-6


class DCNv3(Packable):
    """Deformable convolution v3 with its projections.

    Offsets and weights come from a depth-wise convolution of the input, followed by norm and GELU; the values are a
    linear projection of the input. The published initialisation keeps offsets at zero, so that a fresh module samples
    the regular grid with equal weights.

    Args:
        channels: width C of input and output.
        groups: sampling groups G; must divide C.
        kernel_size: side of the sampling grid; K = kernel_size**2 points (one fewer with `remove_center`).
        dw_kernel_size: side of the depth-wise convolution, None for `kernel_size`.
        offset_scale: factor on grid and offsets.
        center_feature_scale: mix the output with the values by a learned gate for each group.
        remove_center: drop the centre point of the grid.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Source: InternImage, section 3.1, arXiv 2211.05778.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
        remove_center: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        points = kernel_size * kernel_size - int(remove_center)
        dw_size = dw_kernel_size or kernel_size
        self.groups = groups
        self.kernel_size = kernel_size
        self.offset_scale = offset_scale
        self.remove_center = remove_center
        self.backend = backend
        self.dw_conv = nn.Conv2d(channels, channels, dw_size, padding=(dw_size - 1) // 2, groups=channels)
        self.dw_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.act = nn.GELU()
        self.offset = nn.Linear(channels, groups * points * 2)
        self.mask = nn.Linear(channels, groups * points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.center_feature_scale_proj = nn.Linear(channels, groups) if center_feature_scale else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Apply the published initialisation: zero offsets and logits, Xavier projections, closed gates."""
        for layer in (self.offset, self.mask, self.center_feature_scale_proj):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Name the products of this module; offsets and weights come from one."""
        return {
            "input": (self.input_proj,),
            "offset_mask": (self.offset, self.mask),
            "output": (self.output_proj,),
        }

    def forward(self, x: Tensor, *, fuse: bool = False) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C); `fuse` takes the inference-only steps of `internimage.ops.rowwise`."""
        products = self.products
        value = products["input"](x) if products else self.input_proj(x)
        if fuse:
            query = rowwise.depthwise_norm_gelu(x, self.dw_conv, self.dw_norm)
        else:
            query = self.dw_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            query = self.act(self.dw_norm(query))
        if products:
            joined = products["offset_mask"]
            offset, mask = joined(query).split(joined.sizes, dim=-1)  # views; the operator reads them in place
        else:
            offset, mask = self.offset(query), self.mask(query)
        y = dcnv3(
            value,
            offset,
            mask,
            kernel_size=self.kernel_size,
            groups=self.groups,
            offset_scale=self.offset_scale,
            remove_center=self.remove_center,
            softmax=True,
            backend=self.backend,
        )
        if self.center_feature_scale_proj is not None:
            gate = torch.sigmoid(self.center_feature_scale_proj(query)).unsqueeze(-1)  # (N, H, W, G, 1)
            y = torch.lerp(y.unflatten(-1, (self.groups, -1)), value.unflatten(-1, (self.groups, -1)), gate).flatten(-2)
        return products["output"](y) if products else self.output_proj(y)

    def extra_repr(self) -> str:
        """Show the settings that the child modules do not."""
        return f"groups={self.groups}, kernel_size={self.kernel_size}, offset_scale={self.offset_scale}"
