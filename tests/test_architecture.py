"""The rules of docs/architecture.md that a machine can keep: levels, homes of foreign packages, sizes, names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import internimage

PACKAGE = Path(internimage.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LEVELS = {
    "types": 0,
    "errors": 0,
    "processors": 0,
    "lazy": 0,
    "moved": 0,
    "version": 0,
    "files": 0,
    "ranges": 1,
    "settings": 1,
    "ops": 1,
    "layers": 2,
    "data": 2,
    "visualize": 3,
    "backbones": 3,
    "flow": 4,
    "evaluation": 5,
    "checkpoints": 5,
    "classification": 6,
    "detection": 6,
    "segmentation": 6,
    "tasks": 7,
    "hub": 8,
    "training": 9,
    "cli": 10,
    "__init__": 10,
    "__main__": 11,
}

# What still looks up while the house is turned; the list only gets shorter.
LOOKS_UP = {
    "checkpoints/catalog.py -> classification",
    "checkpoints/checkpoint.py -> classification",
    "checkpoints/fill.py -> detection",
    "checkpoints/foreign.py -> detection",
    "checkpoints/foreign.py -> segmentation",
    "checkpoints/formats/huggingface.py -> classification",
    "checkpoints/header.py -> classification",
    "checkpoints/header.py -> detection",
    "checkpoints/header.py -> segmentation",
    "checkpoints/read.py -> classification",
    "checkpoints/rename.py -> classification",
    "checkpoints/rename.py -> detection",
    "checkpoints/rename.py -> segmentation",
    "detection/creation.py -> segmentation",
    "detection/original/settings.py -> classification",
    "detection/original/settings_dino.py -> classification",
    "segmentation/original/settings.py -> classification",
}

# A foreign package is imported only by files that match one of its homes (relative to the package).
HOMES = {
    "triton": ("ops/**/kernel_triton.py", "ops/runtime/triton/bilinear.py"),
    "timm": ("training/*.py", "training/classification/*.py", "integrations/*.py"),
    "tensorboard": ("training/*.py",),
    "matplotlib": ("training/*.py", "evaluation/*.py"),
    "scipy": ("ops/assignment.py",),
    "faster_coco_eval": ("evaluation/*.py", "data/objects/segmentations.py"),
    "cv2": ("segmentation/batches/photometric.py",),
    "av": ("data/images/video.py",),
    "tifffile": ("data/images/array_file.py",),
    "accelerate": ("training/*.py",),
    "safetensors": ("checkpoints/*.py",),
    "huggingface_hub": ("checkpoints/*.py",),
    "typer": ("cli/*.py",),
    "pydantic": ("settings.py",),
    "pydantic_core": ("settings.py",),
    "yaml": ("data/readers/yolo.py",),
    "rich": ("cli/*.py", "training/*.py"),
}

# Tables are data; their length is the number of rows.
TABLES = {"checkpoints/catalog.py"}
FORBIDDEN_NAMES = {"utils", "common", "misc", "helpers", "core", "base"}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "internimage":
                yield from ((f"internimage.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def test_imports_point_to_lower_levels() -> None:
    looks_up: set[str] = set()
    for path in FILES:
        here = room(path)
        assert here in LEVELS, f"{here} has no level; give it one here and in docs/architecture.md"
        for module, line in imports(path):
            if module.split(".")[0] != "internimage":
                continue
            there = module.split(".")[1] if "." in module else "__init__"
            assert there == here or there in LEVELS, f"{path}:{line} imports {module}, which has no level"
            if there != here and LEVELS[there] >= LEVELS[here]:
                looks_up.add(f"{path.relative_to(PACKAGE)} -> {there}")
    assert looks_up == LOOKS_UP


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_foreign_packages_stay_at_home(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    for module, line in imports(path):
        homes = HOMES.get(module.split(".")[0])
        if homes is not None:
            assert any(relative.match(home) for home in homes), f"{relative}:{line}: {module} belongs to {homes}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_size_and_names(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    source = path.read_text(encoding="utf-8")
    assert path.stem not in FORBIDDEN_NAMES
    assert not FORBIDDEN_NAMES & set(relative.parts[:-1])
    is_exempt = str(relative) in TABLES or "kernel" in path.stem
    lines = source.count("\n")
    assert is_exempt or lines <= 400, f"{relative} has {lines} lines; a concept is missing a name"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not is_exempt and node.end_lineno is not None:
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            length = node.end_lineno - body[0].lineno + 1
            assert length <= 50, f"{relative}:{node.lineno}: {node.name} has {length} lines"


def test_every_folder_says_what_it_is() -> None:
    for folder in {path.parent for path in FILES}:
        init = folder / "__init__.py"
        assert init.exists(), f"{folder} has no __init__.py"
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), f"{init} has no docstring"
