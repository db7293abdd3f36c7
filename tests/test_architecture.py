"""The rules of docs/architecture.md that a machine can keep: levels, homes of foreign packages, sizes, names."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import PACKAGE, PAGE, ROOMS, ROOT, TASK_FOLDERS, WAYS, station, with_generated_parts

FILES = sorted(PACKAGE.rglob("*.py"))

MAX_FILES = 16
MAX_WAY = 10  # files
COCO_FIELDS = {"data/readers/coco_entries.py"}  # where "segmentation" is a field of the COCO format, not a task

EVERYWHERE = {"torch", "torchvision", "numpy", "PIL", "typing_extensions"}
# A foreign package is imported only by files that match one of its homes (relative to the package).
HOMES = {
    "triton": ("ops/**/kernel_triton.py", "ops/runtime/triton/bilinear.py"),
    "timm": ("classification/batches/*.py", "integrations/*.py"),
    "matplotlib": ("training/planning/*.py", "training/records/rows.py", "evaluation/*.py"),
    "scipy": ("ops/assignment.py",),
    "faster_coco_eval": ("evaluation/*.py", "data/objects/segmentations.py"),
    "cv2": ("segmentation/batches/photometric.py",),
    "av": ("data/images/video.py",),
    "tifffile": ("data/images/array_file.py",),
    "accelerate": ("training/parallel/*.py", "training/records/trackers.py"),
    "onnx": ("exporting/onnx/*.py",),
    "onnx_ir": ("exporting/onnx/*.py",),
    "onnxscript": ("exporting/onnx/*.py",),
    "onnxruntime": ("exporting/onnx/*.py",),
    "openvino": ("exporting/openvino.py",),
    "nncf": ("exporting/openvino.py",),
    "tensorrt": ("exporting/tensorrt.py",),
    "tensorrt_rtx": ("exporting/tensorrt.py",),
    "deepspeed": ("training/parallel/deepspeed_setup.py",),
    "safetensors": ("checkpoints/*.py",),
    "huggingface_hub": ("checkpoints/*.py",),
    "typer": ("cli/*.py", "cli/planning/*.py", "cli/deploying/*.py"),
    "fastapi": ("serving/*.py",),
    "starlette": ("serving/*.py",),
    "uvicorn": ("serving/*.py",),
    "prometheus_client": ("serving/*.py",),
    "pydantic": ("settings.py",),
    "pydantic_core": ("settings.py",),
    "yaml": ("data/readers/yolo.py", "training/recipes.py"),
    "rich": ("cli/*.py", "cli/predicting/*.py", "training/*.py"),
}

# Tables are data; their length is the number of rows.
TABLES = {"checkpoints/catalog.py"}
FORBIDDEN_NAMES = {"utils", "common", "misc", "helpers", "core", "base"}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree_of(path)):
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
    for path in FILES:
        here = room(path)
        assert here in ROOMS, f"{here} has no level; give it one in tests/house.py"
        for module, line in imports(path):
            if module.split(".")[0] != "internimage":
                continue
            there = module.split(".")[1] if "." in module else "__init__"
            assert there == here or there in ROOMS, f"{path}:{line} imports {module}, which has no level"
            is_lower = there == here or ROOMS[there].level < ROOMS[here].level
            assert is_lower, f"{path}:{line} imports {module}, which is of level {ROOMS[there].level}"


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
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and not is_exempt and node.end_lineno is not None:
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            length = node.end_lineno - body[0].lineno + 1
            assert length <= 50, f"{relative}:{node.lineno}: {node.name} has {length} lines"


def test_every_folder_says_what_it_is() -> None:
    for folder in {path.parent for path in FILES}:
        init = folder / "__init__.py"
        assert init.exists(), f"{folder} has no __init__.py"
        assert ast.get_docstring(tree_of(init)), f"{init} has no docstring"


# ---------------------------------------------------------------- what imports what, file by file


def module_of(path: Path) -> str:
    """Return the name of a file's module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@functools.cache
def imported_modules(path: Path) -> frozenset[str]:
    """Return the modules of this package that a file names in imports, wherever they stand in it."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys()
            if inner - MODULES.keys():
                found.add(node.module)
    return frozenset((found & MODULES.keys()) - {module_of(path)})


def test_stations_look_upstream() -> None:
    looks_downstream: set[str] = set()
    for path in FILES:
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] not in TASK_FOLDERS or (own := station(relative)) is None:
            continue
        for module in imported_modules(path):
            other = MODULES[module].relative_to(PACKAGE)
            place = station(other) if other.parts[0] == relative.parts[0] else None
            if place is not None and place > own:
                looks_downstream.add(f"{relative} -> {other}")
    assert not looks_downstream


def circles() -> set[str]:
    """Return the groups of modules that import one another, TYPE_CHECKING and imports inside of functions included."""
    reached = {name: set(imported_modules(path)) for name, path in MODULES.items()}
    for through in MODULES:
        for name in MODULES:
            if through in reached[name]:
                reached[name] |= reached[through]
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in MODULES}
    return {" ".join(sorted(module.removeprefix("internimage.") for module in group)) for group in groups if group}


def test_no_circles() -> None:
    assert not circles()


def test_every_foreign_package_has_a_home() -> None:
    own = {"internimage", *EVERYWHERE, *HOMES}
    for path in FILES:
        for module, line in imports(path):
            name = module.split(".")[0]
            assert name in own or name in sys.stdlib_module_names, f"{path}:{line}: give {name} a home in HOMES"


def test_folders_are_small() -> None:
    numbers = Counter(str(path.parent.relative_to(PACKAGE)) for path in FILES)
    assert not {folder: number for folder, number in numbers.items() if number > MAX_FILES}


# ---------------------------------------------------------------- only a task's own folder knows the task


def classes_of_tasks() -> dict[str, set[str]]:
    """Return the classes that nobody but tasks defines, with the names of these tasks."""
    found: dict[str, set[str]] = {}
    others: set[str] = set()
    for path in FILES:
        names = {node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)}
        if (task := room(path)) in TASK_FOLDERS:
            for name in names:
                found.setdefault(name, set()).add(task)
        else:
            others |= names
    return {name: tasks for name, tasks in found.items() if name not in others}


def names_in(node: ast.AST) -> set[str]:
    """Return the names and the last parts of attributes below a node."""
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def texts_in(node: ast.AST) -> set[str]:
    """Return the texts below a node."""
    return {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)}


def questions_about_tasks(tree: ast.AST) -> Iterator[tuple[set[str], set[str]]]:
    """Yield what a file's type checks, comparisons and tables compare with: names of classes, and texts."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            yield names_in(node.args[1]), set()
        elif isinstance(node, ast.Compare):
            yield set(), set().union(*map(texts_in, [node.left, *node.comparators]))
        elif isinstance(node, ast.MatchClass):
            yield names_in(node.cls), set()
        elif isinstance(node, ast.MatchValue):
            yield set(), texts_in(node.value)
        elif isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)} & set(TASK_FOLDERS)
            yield set(), keys if len(keys) > 1 else set()  # "segmentation" alone is a word of the COCO format


def test_only_its_own_folder_knows_a_task() -> None:
    classes, names = classes_of_tasks(), set(TASK_FOLDERS)
    asks: set[str] = set()
    for path in FILES:
        own, relative = room(path), path.relative_to(PACKAGE)
        if own == "tasks" or str(relative) in COCO_FIELDS:
            continue
        for kinds, texts in questions_about_tasks(tree_of(path)):
            asks |= {f"{relative}: {kind}" for kind in kinds if own not in classes.get(kind, {own})}
            asks |= {f"{relative}: {text!r}" for text in texts & names - {own}}
    assert not asks


# ---------------------------------------------------------------- the pages tell the truth


def test_the_map_is_that_of_the_house() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_generated_parts(text), "write it anew: python -m tests.house"


def named_by(path: Path) -> set[str]:
    """Return the modules that a file imports, also behind an `__init__`, or behind the tasks where it lists them."""
    found = set(imported_modules(path))
    if module_of(path) == "internimage.tasks":
        tasks = {f"internimage.{task}.task" for task in TASK_FOLDERS}
        found |= tasks.union(*(imported_modules(MODULES[task]) for task in tasks))
    for name in list(found):
        if MODULES[name].name == "__init__.py":
            found |= named_by(MODULES[name])
    return found


@pytest.mark.parametrize("way", [way for ways in WAYS.values() for way in ways.values()], ids=lambda way: way[0][0])
def test_ways_are_short_and_lead_from_file_to_file(way: tuple[tuple[str, str], ...]) -> None:
    assert len(way) <= MAX_WAY
    paths = [PACKAGE / file for file, _ in way]
    assert all(path.exists() for path in paths), [file for file, _ in way if not (PACKAGE / file).exists()]
    for i, path in enumerate(paths[1:], 1):
        leads = any(module_of(path) in named_by(earlier) for earlier in paths[:i])
        builds = any(module_of(earlier) in named_by(path) for earlier in paths[:i])
        assert leads or builds, f"{way[i][0]} has nothing to do with the files before it"


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_pages_name_files_that_exist(page: Path) -> None:
    named = re.findall(r"`([\w./*<>-]+(?:/|\.py|\.md|\.tsv|\.toml))`", page.read_text(encoding="utf-8"))
    assert len(named) >= 10
    for name in named:
        pattern = name.replace("<task>", "*").rstrip("/")
        found = [*PACKAGE.glob(pattern), *ROOT.glob(pattern), *([] if "/" in name else PACKAGE.rglob(pattern))]
        assert found, f"{page.name}: there is no {name}"
