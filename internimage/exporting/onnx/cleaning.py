"""What torch's exporter wrote, made short: constants folded, what cancels out removed, older opsets by conversion."""

from __future__ import annotations

import onnx_ir as ir
from onnx import inliner, version_converter
from onnx_ir.passes import common as passes

NORM_OPSET = 17  # the first with LayerNormalization


def clean(model: ir.Model, opset: int) -> ir.Model:
    """Return a model of an opset with as few nodes as possible, in a valid order.

    Raises:
        ValueError: a node of the model has no form in so old an opset.
    """
    for step in (
        passes.TopologicalSortPass(),  # the exporter's optimizer leaves nodes in front of what they read
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateInitializersPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.TopologicalSortPass(),
    ):
        model = step(model).model
    return model if model.opset_imports[""] == opset else _converted(model, opset)


def _converted(model: ir.Model, opset: int) -> ir.Model:
    message = ir.to_proto(model)
    if opset < NORM_OPSET:
        message = inliner.inline_selected_functions(message, [("", "LayerNormalization")], inline_schema_functions=True)
    try:
        return ir.from_proto(version_converter.convert_version(message, opset))
    except (RuntimeError, version_converter.ConvertError) as error:
        raise ValueError(
            f"this model has no form in opset {opset}: {str(error).splitlines()[0][:200]}; take opset 18 or a newer one"
        ) from error
