from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from typer.testing import Result

import internimage

Run = Callable[..., Result]


def test_round_trip_through_every_format(run: Run, pets: Path, tmp_path: Path) -> None:
    source: Path = pets
    for name in ("pets.pth", "pets_folder", "pets.safetensors"):
        result = run("convert", source, tmp_path / name)
        assert result.exit_code == 0
        assert result.stdout.strip() == str(tmp_path / name)
        source = tmp_path / name
    first, last = internimage.load(pets).state_dict(), internimage.load(source).state_dict()
    assert first.keys() == last.keys()
    assert all(torch.equal(first[key], last[key]) for key in first)


def test_half_precision_halves_the_file(run: Run, pets: Path, tmp_path: Path) -> None:
    assert run("convert", pets, tmp_path / "half.safetensors", "--dtype", "float16").exit_code == 0
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * pets.stat().st_size


def test_wrong_requests(run: Run, pets: Path, tmp_path: Path) -> None:
    for arguments, exit_code, message in (
        ((pets, tmp_path / "pets.onnx"), 1, ".safetensors"),
        (("internimage_tt", tmp_path / "x.pth"), 2, "nearest names"),
        ((pets,), 2, "Usage"),
    ):
        result = run("convert", *arguments)
        assert result.exit_code == exit_code
        assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
