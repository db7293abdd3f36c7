"""The zoo: every published checkpoint, where it comes from, how it is read and how it becomes a model.

Names are imported at first use: the catalog is a table of text, which needs no torch.
"""

from typing import TYPE_CHECKING

from internimage.lazy import lazy_exports

if TYPE_CHECKING:
    from internimage.data.labels import LabelSet as LabelSet
    from internimage.data.labels import label_set as label_set
    from internimage.zoo.catalog import CatalogEntry as CatalogEntry
    from internimage.zoo.catalog import info as info
    from internimage.zoo.catalog import list_models as list_models
    from internimage.zoo.conversion import convert as convert
    from internimage.zoo.factory import create as create
    from internimage.zoo.factory import from_original as from_original
    from internimage.zoo.factory import load as load
    from internimage.zoo.weights import read_checkpoint as read_checkpoint
    from internimage.zoo.weights import save_model as save_model

if not TYPE_CHECKING:  # a checker would take any name for one of this package
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            **dict.fromkeys(("LabelSet", "label_set"), "internimage.data.labels"),
            **dict.fromkeys(("CatalogEntry", "info", "list_models"), "internimage.zoo.catalog"),
            "convert": "internimage.zoo.conversion",
            **dict.fromkeys(("create", "from_original", "load"), "internimage.zoo.factory"),
            **dict.fromkeys(("read_checkpoint", "save_model"), "internimage.zoo.weights"),
        },
    )
