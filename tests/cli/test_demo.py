from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import Result

from internimage.checkpoints.catalog import BUNDLED

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the demo uses the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_demo_classifies_the_bundled_images_offline(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("demo", "--out", out)
    assert result.exit_code == 0
    drawn = ["contact_sheet.png", "detection.png", "segmentation.png"]
    copies = ["scene.jpg", "garment.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*drawn, *copies, "predictions.json"])
    assert (out / "scene.jpg").read_bytes() == (BUNDLED / "pictures" / "closet_scene.jpg").read_bytes()
    summary = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert len(summary["pictures"]) >= 12
    assert summary["right"] >= 0.8 * len(summary["pictures"])
    assert {row["truth"] for row in summary["pictures"]} <= {
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    }
    for row in summary["pictures"]:
        assert row["picture"] in result.stdout and row["name"] in result.stdout
    for name in drawn:
        assert str(out / name) in result.stderr.replace("\n", "")
        with PIL.Image.open(out / name) as image:
            assert min(image.size) >= 384


def test_demo_finds_the_garments_of_the_bundled_scene(run: Run, tmp_path: Path) -> None:
    summary = json.loads(run("demo", "--out", tmp_path, "--json").stdout)
    names = {"Coat", "Sandal", "T-shirt/top"}
    objects = summary["detection"]["objects"]
    assert sorted(entry["name"] for entry in objects) == sorted(names)
    shares = {entry["name"]: entry["share"] for entry in summary["segmentation"]["classes"]}
    assert shares["background"] > 0.4 and set(shares) == {"background", *names}  # the two models agree
    assert all(share > 0.01 for share in shares.values())


def test_demo_writes_json_and_default_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    summary = json.loads(run("demo", "--json").stdout)
    assert Path(summary["contact_sheet"]) == Path("internimage_demo/contact_sheet.png")
    assert (tmp_path / "internimage_demo" / "contact_sheet.png").exists()
    other = json.loads(run("demo", "--json", "--backend", "reference").stdout)
    assert [row["label"] for row in other["pictures"]] == [row["label"] for row in summary["pictures"]]
    assert [entry["label"] for entry in other["detection"]["objects"]] == [
        entry["label"] for entry in summary["detection"]["objects"]
    ]


def test_demo_into_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("demo", "--out", tmp_path / "file")
    assert result.exit_code == 1 and "file" in result.stderr
