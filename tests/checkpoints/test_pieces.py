"""Pieces of tensors in files: any number of writers, any part read, and what is wrong with files is said."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.checkpoints.pieces import (
    DamagedFile,
    Note,
    Piece,
    changed,
    read_pieces,
    whole,
    with_stored,
    without_pieces,
    write_pieces,
)

STATE: dict[str, Any] = {
    "model": {"weight": torch.arange(42.0).view(7, 3, 2), "steps": torch.tensor(5), "none": torch.zeros(0, 3)},
    "optimizer": {"state": {0: {"exp_avg": torch.randn(7, 3, 2).bfloat16()}}, "param_groups": [{"lr": 0.1}]},
}


def shared_out(cuts: tuple[int, ...], folder: Path) -> dict[str, list[Note]]:
    """Write the state as flat partitions that end where `cuts` say, whatever the rows."""
    ends = (0, *cuts, 42)
    notes: dict[str, list[Note]] = {}
    for rank, (start, end) in enumerate(itertools.pairwise(ends)):

        def piece(value: torch.Tensor, rank: int = rank, start: int = start, end: int = end) -> Piece:
            if value.numel() < 42:
                return Piece.of(value, kept=rank == 1)
            return Piece(value.view(-1)[start:end], start, tuple(value.shape))

        name = f"shard-{rank}.safetensors"
        notes[name] = write_pieces(changed(STATE, piece), folder / name, tells_all=rank == 0)
    return notes


@pytest.mark.parametrize("cuts", [(20,), (1, 1, 41)])
def test_any_part_is_read_from_any_number_of_files(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    stored = read_pieces(shared_out(cuts, tmp_path), tmp_path)
    state = without_pieces(changed(STATE, Piece.of))
    assert state == {"model": {}, "optimizer": {"state": {0: {}}, "param_groups": [{"lr": 0.1}]}}
    with_stored(state, stored)
    found = changed(state, whole)
    for key, value in STATE["model"].items():
        assert torch.equal(found["model"][key], value) and found["model"][key].dtype == value.dtype
    moment = STATE["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], moment)
    for start, count in ((0, 42), (19, 2), (41, 1), (7, 0)):
        part = stored["optimizer", "state", 0, "exp_avg"].part(start, count)
        assert torch.equal(part, moment.view(-1)[start : start + count])


def test_one_changed_bit_is_seen_when_it_is_read(tmp_path: Path) -> None:
    notes = shared_out((20,), tmp_path)
    path = tmp_path / "shard-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    stored = read_pieces(notes, tmp_path)
    damaged = [route for route, value in stored.items() if not is_sound(value)]
    assert len(damaged) == 1


def is_sound(value: Any) -> bool:
    try:
        value.whole()
    except DamagedFile as error:
        assert "shard-1.safetensors is damaged" in str(error)
        return False
    return True


def test_what_does_not_make_whole_tensors_is_refused_before_values_are_read(tmp_path: Path) -> None:
    notes = shared_out((20,), tmp_path)
    first, second = notes
    with pytest.raises(DamagedFile, match="lacks a part of model/weight"):
        read_pieces({first: notes[first]}, tmp_path)
    with pytest.raises(DamagedFile, match="names a file elsewhere"):
        read_pieces({"../" + first: notes[first]}, tmp_path)
    route, shape, dtype, start, count, checksum = notes[second][0]
    for wrong in ((route, (7, 3, 20), dtype, start, count, checksum), (route, shape, "float8", start, count, checksum)):
        with pytest.raises(DamagedFile, match="contradicts itself about model/weight"):
            read_pieces({first: notes[first], second: [wrong]}, tmp_path)
    with pytest.raises(DamagedFile, match="lacks a part of model/weight"):  # a count that the file does not have
        read_pieces({first: [(route, (10**12,), dtype, 0, 10**12, 0)]}, tmp_path)
    content = (tmp_path / second).read_bytes()
    (tmp_path / second).write_bytes(content[:-10])
    with pytest.raises(DamagedFile, match=r"shard-1\.safetensors is damaged"):
        read_pieces(notes, tmp_path)
    (tmp_path / second).unlink()
    with pytest.raises(DamagedFile, match=r"shard-1\.safetensors is damaged"):
        read_pieces(notes, tmp_path)
