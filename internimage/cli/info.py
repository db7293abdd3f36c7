"""`internimage info`: one checkpoint."""

from __future__ import annotations

from internimage.cli.models import local_state, parameters, to_dict
from internimage.cli.terminal import JsonOption, ModelArgument, print_fields, print_json


def info(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show everything the catalog knows about one checkpoint."""
    from internimage import zoo

    entry = zoo.info(model)
    if as_json:
        print_json(to_dict(entry))
        return
    fields: dict[str, object] = {
        "task": entry.task,
        "backbone": entry.backbone,
        "head": entry.head,
        "method": entry.method,
        "data": entry.dataset,
        "classes": entry.num_classes,
        "input size": entry.input_size,
        "published": ", ".join(f"{name} {value:g}" for name, value in entry.metrics.items()),
        "parameters": parameters(entry, exact=True),
        "GFLOPs": entry.gflops,
        "licence": entry.licence,
        "weights": local_state(entry),
        "download": entry.url,
        "original config": entry.config_path,
        "recipe": entry.recipe,
        "remarks": entry.remarks,
    }
    if not entry.is_built:
        fields["this release"] = "does not build this model yet"
    print_fields(fields, title=entry.name)
