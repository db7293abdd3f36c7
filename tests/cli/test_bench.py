from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from internimage.cli.bench import TOLERANCES, _percentile

Run = Callable[..., Result]


def test_bench_of_a_size(run: Run) -> None:
    report = json.loads(run("bench", "internimage_pico", "--size", 40, "--batch-size", 2, "--runs", 3, "--json").stdout)
    assert 0 <= report["difference_from_reference"] <= 1e-4
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["images_per_second"] == pytest.approx(2e3 / report["p50_ms"], rel=0.01)
    assert (report["size"], report["batch_size"], report["runs"], report["dtype"]) == (40, 2, 3, "float32")
    assert report["threads"] == torch.get_num_threads()


def test_bench_of_a_file_takes_its_size(run: Run, pets: Path) -> None:
    text = run("bench", pets, "--runs", 1, "--dtype", "bfloat16").stdout
    assert "p50 ms" in text and "images per second" in text
    assert json.loads(run("bench", pets, "--runs", 1, "--json").stdout)["size"] == 32


def test_bench_of_packed_weights(run: Run, pets: Path) -> None:
    report = json.loads(run("bench", pets, "--runs", 1, "--fuse", "--json").stdout)
    assert report["fused"] and report["difference_from_reference"] <= 1e-4


def test_no_speed_without_right_answers(run: Run, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCES, "float32", -1.0)
    result = run("bench", pets, "--runs", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no speed was measured" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["internimage_tiny"], 2, "nearest names"),
        (["mask_rcnn_internimage_t_fpn_1x_coco"], 1, "bench takes classifiers"),
        (["openlanev2_internimage-s"], 1, "not built by this release"),
        (["internimage_pico", "--device", "gpu0"], 2, "no device"),
        (["internimage_pico", "--device", "cuda:99"], 1, "not here"),
        (["internimage_pico", "--backend", "magic"], 2, "no backend"),
        (["internimage_pico", "--dtype", "int8"], 2, "int8"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else None,
)
def test_wrong_requests(run: Run, arguments: list[str], exit_code: int, message: str) -> None:
    result = run("bench", *arguments)
    assert result.exit_code == exit_code
    assert message in " ".join(result.stderr.split())


def test_percentile() -> None:
    assert _percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert _percentile([5.0], 0.99) == 5.0
    assert _percentile(list(range(1, 201)), 0.99) == 198
