"""Operators: tensors in, tensors out, no parameters; the only home of kernels."""

from internimage.ops.backends import Support as Support
from internimage.ops.backends import support_table as support_table
from internimage.ops.deform_attn import ms_deform_attn as ms_deform_attn
from internimage.ops.deform_conv_v3 import dcnv3 as dcnv3
from internimage.ops.deform_conv_v4 import dcnv4 as dcnv4
