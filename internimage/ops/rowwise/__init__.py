"""Fused inference steps between the matrix products of a block, on channel rows."""

from internimage.ops.rowwise.branch import Branch as Branch
from internimage.ops.rowwise.interface import add_branch_ as add_branch_
from internimage.ops.rowwise.interface import can_fuse as can_fuse
from internimage.ops.rowwise.interface import depthwise_norm_gelu as depthwise_norm_gelu
from internimage.ops.rowwise.interface import gelu_ as gelu_
from internimage.ops.rowwise.interface import residual_ as residual_
