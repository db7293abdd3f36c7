"""The recorded cases of the original implementation, each through `run_case.py` and `compare.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = (
    *("dcnv3_op", "dcnv4_op", "msda_op", "small_h", "small_prenorm", "cls_t"),
    *("flash_small_dw", "flash_small_nodw", "flash_small_nodw_odd", "flash_t"),
    *("upernet_train", "segformer_l_reduced", "mask2former_slide", "mask2former_train", "preprocess_segmentation"),
)
SLOW = ("cls_b", "flash_b", "upernet_pipeline", "mask2former_tta_pipeline", "mask2former_flash_s_nsmx")


def run(script: str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_case_agrees_with_the_original(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    produced = run("run_case.py", HERE / "cases" / name, out)
    assert produced.returncode == 0, produced.stderr
    judged = run("compare.py", HERE / "cases" / name, out, "--quiet")
    assert judged.returncode == 0, judged.stdout


def test_unknown_kind_is_said_so(tmp_path: Path) -> None:
    case = tmp_path / "video_case"
    case.mkdir()
    (case / "manifest.json").write_text("{}")
    refused = run("run_case.py", case, tmp_path / "out.npz")
    assert refused.returncode == 2
    assert "video_case" in refused.stderr
