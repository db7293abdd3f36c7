"""Deformable convolution v3: samples at learned positions, weighted by a softmax over each group's points."""

from internimage.ops.deform_conv_v3.interface import dcnv3 as dcnv3
from internimage.ops.deform_conv_v3.interface import run as run
