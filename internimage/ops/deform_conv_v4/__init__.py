"""Deformable convolution v4: as v3 with unbounded weights, offsets and weights packed in one tensor."""

from internimage.ops.deform_conv_v4.interface import dcnv4 as dcnv4
from internimage.ops.deform_conv_v4.interface import packed_channels as packed_channels
from internimage.ops.deform_conv_v4.interface import run as run
