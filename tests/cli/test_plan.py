from __future__ import annotations

import json
import shlex
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from internimage.cli import app

PICO = ("plan", "internimage_pico_fashion", "--memory", "4")
SMALL = ("--set", "run.precision=fp32")


def invoke(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def test_a_plan_as_json_and_as_image(tmp_path: Path) -> None:
    image = tmp_path / "plan.png"
    words = (*PICO, "--devices", 2, "--batch", 64, "--interconnect", 5, "--images-per-second", 50, *SMALL)
    code, out, err = invoke(*words, "--plot", image, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["global_batch"], found["batch_size"], found["steps"]) == (64, 32, 24 * (60_000 // 64))
    rows = found["strategies"]
    assert len(rows) == 16 and rows[0]["strategy"] == "ddp" and rows[0]["fits"]
    for row in rows:
        parts = ("weights", "gradients", "optimizer", "average", "gathered", "reserve", "activations")
        assert row["total_bytes"] == sum(row[f"{part}_bytes"] for part in parts)
    command = shlex.split(found["command"])
    assert command[:3] == ["internimage", "train", "internimage_pico_fashion"]
    assert command[-6:] == ["--processes", "2", "--set", "run.precision=fp32", "--set", "data.batch_size=32"]
    assert any("(--reserve)" in text for text in found["assumptions"])
    with PIL.Image.open(image) as drawn:
        assert drawn.size[0] == 1000


def test_a_plan_as_table_with_a_measured_speed() -> None:
    code, out, err = invoke(*PICO, "--devices", 1, "--measure", *SMALL, "--set", "data.batch_size=8")
    assert code == 0, err
    assert "one device" in out and "images a second" in out and "time" in out and "--processes" not in out
    assert "measured on this machine" in err


def test_more_devices_than_a_machine_has_are_started_machine_by_machine() -> None:
    code, out, err = invoke(*PICO, "--devices", 12, *SMALL, "--json")
    assert code == 0, err
    command = shlex.split(json.loads(out)["command"])
    assert command[:5] == ["torchrun", "--nnodes", "2", "--nproc-per-node", "6"]
    start = command.index("internimage")
    assert command[start - 1] == "-m" and command[start + 1] == "train" and "--processes" not in command


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--devices", 3, "--batch", 64), "64 images do not divide among 3 devices"),
        (("--devices", 2, "--batch", 64, "--set", "data.batch_size=8"), "data.batch_size is set, too"),
        (("--devices", 1, "--interconnect", 5), "one device sends nothing"),
        (("--devices", 1, "--measure", "--images-per-second", 5), "or let it be measured"),
    ],
)
def test_contradictions(words: tuple[object, ...], text: str) -> None:
    code, out, err = invoke(*PICO, *words)
    assert code == 2 and out == "" and text in " ".join(err.replace("│", " ").split())


def test_an_unknown_recipe() -> None:
    code, _, err = invoke("plan", "internimage_x", "--devices", 1, "--memory", 4)
    assert code == 2 and "internimage_" in err
