"""Multi-scale deformable attention: each query sums weighted samples of several feature maps."""

from internimage.ops.deform_attn.interface import ms_deform_attn as ms_deform_attn
