"""`internimage bench --tune`: what it measures and keeps; on a machine without a GPU the kernels are stood for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from internimage.cli.measuring import tuning
from internimage.cli.measuring.timing import interleave
from internimage.ops.runtime.triton import launch
from internimage.ops.runtime.triton.launch import Settings

HALF, CPU = torch.float16, torch.device("cpu")


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a device that is said to be there."""
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path))
    monkeypatch.setattr(launch, "device_name", lambda device: "Some GPU 80GB")
    monkeypatch.setattr(launch.metadata, "version", lambda name: "3.6.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for cached in (launch.tuned_settings, launch.settings_of_device):
        cached.cache_clear()
    yield tmp_path / "launch" / "some-gpu-80gb-triton-3.6.0.json"
    for cached in (launch.tuned_settings, launch.settings_of_device):
        cached.cache_clear()


def test_tuning_needs_a_gpu(run: Callable[..., Result]) -> None:
    result = run("bench", "--tune", "--device", "cpu")
    assert result.exit_code == 1 and "measures the kernels of a GPU, given cpu" in " ".join(result.stderr.split())
    result = run("bench")
    assert result.exit_code == 2 and "name a model" in result.stderr


def test_what_is_clearly_faster_is_kept_and_used(tuned: Path) -> None:
    device = torch.device("cuda", 0)
    usual = launch.settings_of("window", "forward", HALF, 16, device)
    assert usual == launch.default_settings("window", "forward", HALF)
    rows = [tuning.Found("window forward float16 16", 2048, 8, 0.5, 0.6)]
    rows.append(tuning.Found("window forward float32 16", 2048, 8, 0.599, 0.6))
    assert tuning.keep(device, rows) == tuned
    assert json.loads(tuned.read_text()) == {"window forward float16 16": [2048, 8]}
    assert launch.settings_of("window", "forward", HALF, 16, device) == Settings(2048, 8)
    assert launch.settings_of("window", "forward", HALF, 32, device) == usual
    tuning.keep(device, [tuning.Found("levels forward float16 32", 256, 1, 1.0, 2.0)])
    assert len(json.loads(tuned.read_text())) == 2


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"window forward float16 16": [100, 4]}', '{"a": [64]}', '{"a": ["x", 4]}']
)
def test_a_file_that_cannot_be_used_counts_as_none(tuned: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    tuned.parent.mkdir()
    tuned.write_text(text)
    found = launch.settings_of("window", "forward", HALF, 16, torch.device("cuda", 0))
    assert found == launch.default_settings("window", "forward", HALF)
    assert f"{tuned} is not used" in caplog.text and "bench --tune" in caplog.text


def test_every_candidate_is_measured_at_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def run() -> None:
        seen.append(launch.settings_of("window", "forward", HALF, 16, CPU))

    monkeypatch.setattr(tuning, "_runs", lambda *kernel: {"forward": run, "backward": run})
    monkeypatch.setattr(tuning, "interleave", lambda calls, **limits: interleave(calls, rounds=2))
    found = list(tuning.tune(torch.device("cuda"), seconds=0.0))
    assert len(found) == 2 * 3 * 3  # directions, types, two widths and one
    assert set(launch.candidates("forward")) <= set(seen)
    assert all(row.milliseconds <= row.milliseconds_before for row in found)
