from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from internimage import zoo

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path / "home"))


def test_list_shows_every_checkpoint(run: Run) -> None:
    result = run("list")
    assert result.exit_code == 0
    for name in zoo.list_models():
        assert name in result.stdout
    assert "83.5" in result.stdout and "…" not in result.stdout


def test_list_takes_patterns_parts_and_tasks(run: Run) -> None:
    names = [entry["name"] for entry in json.loads(run("list", "*_t_1k_*", "--json").stdout)]
    assert names == zoo.list_models("*_t_1k_*")
    part = [entry["name"] for entry in json.loads(run("list", "cascade", "--json").stdout)]
    assert part == zoo.list_models("*cascade*") and part
    tasks = {entry["task"] for entry in json.loads(run("list", "--task", "segmentation", "--json").stdout)}
    assert tasks == {"segmentation"}


def test_list_without_a_match_says_so(run: Run) -> None:
    result = run("list", "resnet50")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no checkpoint matches" in result.stderr
    assert run("list", "--task", "clasification").exit_code == 2


def test_info_of_a_classifier(run: Run) -> None:
    result = run("info", "internimage_b_1k_224.pth")
    assert result.exit_code == 0
    for fact in ("internimage_b_1k_224", "97,461,832", "top1 84.9", "MIT", "https://huggingface.co/"):
        assert fact in result.stdout
    row = json.loads(run("info", "internimage_b_1k_224", "--json").stdout)
    assert row["parameters"] == 97461832 and row["is_built"] and row["metrics"] == {"top1": 84.9}


def test_info_of_a_model_of_a_later_release(run: Run) -> None:
    result = run("info", "openlanev2_internimage-s")
    assert "does not build this model yet" in result.stdout


def test_info_suggests_three_names(run: Run) -> None:
    result = run("info", "intrnimage_t_1k")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "internimage_t_1k_224" in result.stderr and result.stderr.count("_1k_") >= 3


def test_a_file_put_there_by_hand_is_seen(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("info", "internimage_t_1k_224", "--json").stdout)["local"] in ("download", "on this machine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "internimage_t_1k_224.pth").write_bytes(b"weights")
    assert json.loads(run("info", "internimage_t_1k_224", "--json").stdout)["local"] == "on this machine"
