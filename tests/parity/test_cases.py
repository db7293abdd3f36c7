"""The recorded cases of the original implementation, each through `run_case.py` and `compare.py`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DATA = HERE / "data" / "cases"
SLOW = (
    *("cls_b", "flash_b", "preprocess_segmentation"),
    *("mask_rcnn_flash_t", "cascade_reduced", "cascade_train_all", "preprocess_detection"),
)
CASES = sorted(path.name for path in DATA.iterdir())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]
)
def test_case_agrees_with_the_original(
    name: str, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    assert run("run_case", DATA / name, out) == 0
    assert run("compare", DATA / name, out, "--quiet") == 0, capsys.readouterr().out


def test_scripts_run_on_their_own(tmp_path: Path) -> None:
    case, out = DATA / "small_prenorm", tmp_path / "out.npz"
    for script, arguments in (("run_case.py", [case, out]), ("compare.py", [case, out, "--quiet"])):
        done = subprocess.run([sys.executable, HERE / script, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_unknown_kind_is_said_so(tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    case = tmp_path / "video_case"
    case.mkdir()
    (case / "manifest.json").write_text("{}")
    assert run("run_case", case, tmp_path / "out.npz") == 2
    assert "video_case" in capsys.readouterr().err
