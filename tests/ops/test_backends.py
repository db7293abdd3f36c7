"""The chooser: order of preference, reasons, and what importing the operators costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from internimage.errors import BackendUnavailable
from internimage.ops import backends, support_table
from internimage.ops.backends import Backend
from internimage.ops.runtime import library


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(device: str, dtype: torch.dtype) -> str | None:
        return "it is broken"

    def only_cpu(device: str, dtype: torch.dtype) -> str | None:
        return None if device == "cpu" else f"runs on cpu, given {device}"

    choices = {"fast": Backend(never, min, min), "slow": Backend(only_cpu, max, max)}
    monkeypatch.setattr(backends, "_TABLE", {"thing": choices})
    monkeypatch.setattr(backends, "_chosen", {})


def test_auto_takes_the_first_that_can_run(table):
    assert backends.choose("thing", "auto", "cpu", torch.float32).forward is max


def test_a_named_backend_never_falls_back(table):
    with pytest.raises(BackendUnavailable, match=r"backend='fast' cannot run on cpu tensors.*it is broken"):
        backends.choose("thing", "fast", "cpu", torch.float32)


def test_all_reasons_are_given_when_none_runs(table):
    with pytest.raises(BackendUnavailable, match=r"fast: it is broken; slow: runs on cpu, given cuda"):
        backends.choose("thing", "auto", "cuda", torch.float32)


def test_unknown_name(table):
    with pytest.raises(ValueError, match=r"backend must be one of \('auto', 'fast', 'slow'\), given 'best'"):
        backends.check_name("thing", "best")


def test_support_table_has_a_reason_for_every_no():
    rows = support_table()
    assert {row.operator for row in rows} >= {"dcnv3", "dcnv4", "ms_deform_attn"}
    assert all(bool(row.reason) != row.runs for row in rows)
    assert all(row.runs for row in rows if row.backend == "reference" and row.device == "cpu")
    assert any(row.backend == "cpp" and row.device == "cuda" and "cpu tensors" in row.reason for row in rows)


def test_kernels_are_built_and_loaded():
    assert library.missing_reason() is None
    assert library.instruction_set() in library.INSTRUCTION_SETS


def test_missing_library_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "path", lambda: tmp_path / "kernels.so")
    assert "no C++ compiler or no CMake" in str(library.missing_reason.__wrapped__())


def test_broken_library_is_explained(monkeypatch, tmp_path):
    broken = tmp_path / "kernels.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(library, "path", lambda: broken)
    assert "cannot be loaded" in str(library.missing_reason.__wrapped__())


def test_library_of_another_version_is_explained(monkeypatch):
    monkeypatch.setattr(library, "ABI_VERSION", -1)
    assert "of another version" in str(library.missing_reason.__wrapped__())


def test_import_loads_no_kernels():
    code = (
        "import sys, internimage.ops; "
        "assert not any('kernel_triton' in name or 'triton.bilinear' in name for name in sys.modules); "
        "import internimage.ops.runtime.library as library; "
        "assert library.kernels.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
