"""The public surface is frozen: a new name is a decision, made here and in the README."""

from __future__ import annotations

import subprocess
import sys

import pytest

import internimage as ii

PUBLIC = {
    "BackendUnavailable",
    "CheckpointMismatch",
    "Classification",
    "Detections",
    "Features",
    "MissingExtra",
    "Segmentation",
    "UnknownName",
    "convert",
    "create",
    "draw",
    "info",
    "list_models",
    "load",
    "ops",
    "save",
}


def test_public_names_are_frozen() -> None:
    assert set(ii.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(ii, name).__doc__, f"{name} has no docstring"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_is_silent_and_loads_no_optional_package() -> None:
    optional = ["triton", "matplotlib", "timm", "tensorboard", "accelerate", "rich", "typer"]
    optional += ["huggingface_hub", "onnx", "transformers"]
    # torch itself may import some of them; only what internimage adds counts.
    code = (
        "import sys, torch, torchvision, PIL.Image; before = set(sys.modules); import internimage;"
        f"print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] in {optional!r}))"
    )
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("attempts", [3])
def test_import_takes_at_most_300_ms_over_torch(attempts: int) -> None:
    code = (
        "import time, torch, torchvision; start = time.perf_counter(); import internimage;"
        "print(time.perf_counter() - start)"
    )
    assert min(float(run(code)) for _ in range(attempts)) <= 0.3
