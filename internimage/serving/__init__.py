"""Models behind HTTP: one process that talks to clients, others that hold the models, and a page to try them.

A request's way: `app` (routes, limits) -> `bodies` (bytes of the images) -> `pool` (queues, batches) -> `process` and
`worker` (decode, predict, write) -> `app`. The process that talks to clients never decodes an image and never imports
torch: what a hostile image breaks is a worker, which is started anew. Workers do not import what talks HTTP.
"""

from typing import TYPE_CHECKING

from internimage.lazy import lazy_exports

if TYPE_CHECKING:
    from internimage.serving.run import serve as serve
    from internimage.serving.settings import Batching as Batching
    from internimage.serving.settings import Limits as Limits
    from internimage.serving.settings import Served as Served
    from internimage.serving.settings import Serving as Serving
    from internimage.serving.settings import named_models as named_models
else:  # a checker would take any name for one of this package
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "serve": "internimage.serving.run",
            **dict.fromkeys(
                ("Batching", "Limits", "Served", "Serving", "named_models"), "internimage.serving.settings"
            ),
        },
    )
