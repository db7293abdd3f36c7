"""InternImage backbones: settings, sizes and the network."""

from internimage.backbones.composite import CompositeInternImage as CompositeInternImage
from internimage.backbones.config import VARIANTS as VARIANTS
from internimage.backbones.config import BackboneConfig as BackboneConfig
from internimage.backbones.config import variant as variant
from internimage.backbones.internimage import InternImage as InternImage
