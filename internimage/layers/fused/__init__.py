"""The inference twins of layers, and `fuse`, which puts them in place."""

from internimage.layers.fused.deform_conv import FusedDCNv3 as FusedDCNv3
from internimage.layers.fused.deform_conv import FusedDCNv4 as FusedDCNv4
from internimage.layers.fused.deform_conv import FusedDeformConv as FusedDeformConv
from internimage.layers.fused.graphs import Replayed as Replayed
from internimage.layers.fused.graphs import keep_graphs as keep_graphs
from internimage.layers.fused.mlp import FusedMLP as FusedMLP
from internimage.layers.fused.transformer import FusedAttention as FusedAttention
from internimage.layers.fused.transformer import FusedFeedForward as FusedFeedForward
from internimage.layers.fused.transformer import FusedMSDeformAttention as FusedMSDeformAttention
from internimage.layers.fused.transformer import add_norm as add_norm
from internimage.layers.fused.transformer import feed_forward_norm as feed_forward_norm
from internimage.layers.fused.twin import Twin as Twin
from internimage.layers.fused.twin import fuse as fuse
from internimage.layers.fused.twin import use_twins as use_twins
