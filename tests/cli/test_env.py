from __future__ import annotations

import json
from collections.abc import Callable

import torch
from typer.testing import Result

from internimage.ops import support_table
from internimage.ops.fused import support_reason


def test_env_tells_versions_and_operators(run: Callable[..., Result]) -> None:
    text = run("env").stdout
    assert torch.__version__ in text
    for row in support_table():
        assert row.operator in text and row.backend in text
        assert row.reason in text
    facts = json.loads(run("env", "--json").stdout)
    assert facts["packages"]["torch"] == torch.__version__
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        assert facts["fused_linear_layers"][name] == (support_reason("cpu", dtype) or "compiled")
        assert f"{name}: " in text
    assert facts["threads"] == torch.get_num_threads()
    assert len(facts["operators"]) == len(support_table())
    reference = [row for row in facts["operators"] if row["backend"] == "reference" and row["device"] == "cpu"]
    assert reference and all(row["runs"] for row in reference)
    assert all(row["reason"] for row in facts["operators"] if not row["runs"])
