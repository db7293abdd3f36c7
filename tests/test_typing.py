"""The annotations reach users: the package is marked as typed, and a checker accepts the lines of the README."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import typing
from importlib import metadata, resources
from pathlib import Path

import internimage as ii
from internimage.backbones.config import VARIANTS, SizeName
from internimage.hub.loaded import CreateOptions

LINES = """
import torch
import internimage as ii

model = ii.load("internimage_pico_fashion")
[result] = model.predict(["scene.jpg"])
print(result.top(3), model.config.class_names)
ii.draw(result, "scene.jpg").save("out.png")
model.fuse().predict(["scene.jpg"], batch_size=4)

found = ii.load("runs/best.safetensors").to("cpu").eval().predict(["street.jpg"], score_threshold=0.3)
print(found[0].boxes_xyxy, found[0].names)
ii.save_model(ii.load("a.pth"), "a.safetensors")

backbone = ii.create("internimage_b", weights="internimage_b_1k_224").eval()
reveal_type(backbone)
maps = backbone(torch.rand(1, 3, 512, 512)).maps
print(backbone.channels, maps[0].shape)
classifier = ii.create("classifier", backbone="internimage_s", num_classes=3)
reveal_type(classifier.predict)
y = ii.ops.dcnv3(torch.rand(1, 8, 8, 32), torch.rand(1, 8, 8, 36), torch.rand(1, 8, 8, 18), groups=2)
reveal_type(y)
version: str = ii.__version__
names: list[str] = ii.list_models("mask_rcnn*", task="detection")
print(ii.info(names[0]).metrics["boxAP"])
"""


MISTAKES = """
import internimage as ii
ii.load(3)
ii.create("internimage_t", size=7)
ii.lod("x")
"""


def test_a_checker_accepts_the_lines_of_the_readme_and_finds_mistakes(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(LINES, encoding="utf-8")
    (tmp_path / "mistakes.py").write_text(MISTAKES, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "basic"}', encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout)
    assert report["summary"]["filesAnalyzed"] == 2
    found: dict[str, list[tuple[int, str, str]]] = {"lines.py": [], "mistakes.py": []}
    for entry in report["generalDiagnostics"]:
        line = entry["range"]["start"]["line"]
        found[Path(entry["file"]).name].append((line, entry["severity"], entry["message"]))
    assert [entry for entry in found["lines.py"] if entry[1] != "information"] == []
    revealed = [message for _, severity, message in found["lines.py"] if severity == "information"]
    assert len(revealed) == 3 and '"InternImage"' in revealed[0] and '"Tensor"' in revealed[2]
    assert "-> list[Any]" in revealed[1]
    assert {line for line, severity, _ in found["mistakes.py"] if severity == "error"} == {2, 3, 4}


def test_the_package_is_marked_as_typed() -> None:
    assert (resources.files("internimage") / "py.typed").is_file()


def test_types_of_names_and_options_follow_the_code() -> None:
    assert typing.get_args(SizeName) == tuple(VARIANTS)
    parameters = list(inspect.signature(ii.create).parameters)
    assert list(CreateOptions.__annotations__) == parameters[1:]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert ii.__version__ == metadata.version("internimage")
    assert ii.__version__[0].isdigit()
