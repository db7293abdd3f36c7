"""What stands around the deformable convolution of a block, fused: linear layers, norms, sums, activations."""

from internimage.ops.fused.linear import Activation as Activation
from internimage.ops.fused.linear import packed_conv as packed_conv
from internimage.ops.fused.linear import packed_linear as packed_linear
from internimage.ops.fused.linear import packed_perceptron as packed_perceptron
from internimage.ops.fused.packed_weight import ConvWindow as ConvWindow
from internimage.ops.fused.packed_weight import PackedWeight as PackedWeight
from internimage.ops.fused.packed_weight import missing_reason as missing_reason
from internimage.ops.fused.packed_weight import pack as pack
from internimage.ops.fused.packed_weight import patch_weight as patch_weight
from internimage.ops.fused.packed_weight import support_reason as support_reason
from internimage.ops.fused.residual import Residual as Residual
from internimage.ops.fused.rows import add_branch as add_branch
from internimage.ops.fused.rows import gelu_linear as gelu_linear
from internimage.ops.fused.rows import have_kernels as have_kernels
from internimage.ops.fused.rows import layer_norm as layer_norm
from internimage.ops.fused.steps import add_residual_ as add_residual_
from internimage.ops.fused.steps import add_shortcut_ as add_shortcut_
from internimage.ops.fused.steps import depthwise_norm_gelu as depthwise_norm_gelu
from internimage.ops.fused.steps import gelu_ as gelu_
