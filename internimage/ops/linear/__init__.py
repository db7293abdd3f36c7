"""Linear layers on packed weights for inference on a CPU."""

from internimage.ops.linear.interface import Activation as Activation
from internimage.ops.linear.interface import packed_conv as packed_conv
from internimage.ops.linear.interface import packed_linear as packed_linear
from internimage.ops.linear.interface import packed_perceptron as packed_perceptron
from internimage.ops.linear.packed import PackedWeight as PackedWeight
from internimage.ops.linear.packed import Window as Window
from internimage.ops.linear.packed import missing_reason as missing_reason
from internimage.ops.linear.packed import pack as pack
from internimage.ops.linear.packed import patch_weight as patch_weight
from internimage.ops.linear.packed import support_reason as support_reason
