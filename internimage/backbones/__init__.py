"""InternImage backbones: settings, sizes and the network.

Names are imported at first use: the sizes are a table, which needs no torch.
"""

from typing import TYPE_CHECKING

from internimage.lazy import lazy_exports

if TYPE_CHECKING:
    from internimage.backbones.composite import CompositeInternImage as CompositeInternImage
    from internimage.backbones.config import VARIANTS as VARIANTS
    from internimage.backbones.config import BackboneConfig as BackboneConfig
    from internimage.backbones.config import variant as variant
    from internimage.backbones.internimage import InternImage as InternImage

if not TYPE_CHECKING:  # a checker would take any name for one of this package
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "CompositeInternImage": "internimage.backbones.composite",
            **dict.fromkeys(("VARIANTS", "BackboneConfig", "variant"), "internimage.backbones.config"),
            "InternImage": "internimage.backbones.internimage",
        },
    )
