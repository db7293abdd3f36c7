"""What torch would do when it opens a `.pt2` file, told without opening it.

torch.export.load reads pickles, evaluates texts as Python and looks names up in torch: a hostile file runs what it
likes. Files that this package writes need none of it: numbers, operators with numbers, and expressions of sizes.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from internimage.checkpoints.header import HEADER_KEY, MAX_DOCUMENT_BYTES
from internimage.errors import printable

MODEL, COMPILED, DOCUMENT = "models/model.json", "data/aotinductor/", f"extra/{HEADER_KEY}"
EMPTY = "data/sample_inputs/model.pt"  # a pickle of example inputs in files of others
ENTRY = re.compile(
    r"models/model\.json|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt|extra/internimage|archive_format|archive_version|byteorder|\.data/\w+"
)
MAX_JSON_BYTES = 256 * 2**20
MAX_EXPRESSION = 20_000  # characters

NAME = re.compile(r"[A-Za-z_]\w*")
TEXT = re.compile(r"[\w.+ -]{0,500}")
TARGET = re.compile(
    r"torch\.ops\.(aten|internimage|torchvision)\.\w+\.\w+|_operator\.\w+|math\.(trunc|ceil|floor)|torch\.sym_\w+"
)
WORDS = ("name", "as_name")  # keys of names, which torch writes into code
IGNORED = ("guards_code",)  # code that `module(check_guards=False)` leaves alone
SPECS = ("in_spec", "out_spec")
FOREIGN = ("as_custom_obj", "as_graph", "as_operator", "as_opaque_obj")
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
FUNCTIONS = frozenset(
    {"Add", "Mul", "Pow", "Integer", "Symbol", "FloorDiv", "CleanDiv", "Mod", "PythonMod", "Max", "Min", "Rational"}
    | {"CeilToInt", "FloorToInt", "TruncToInt", "IntTrueDiv", "ToFloat", "Float", "Eq", "Ne", "And", "Or", "Not"}
    | {"Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "ModularIndexing"}
)
STRING_ARGUMENTS = frozenset({"mode", "rounding_mode", "approximate", "indexing", "reduce", "padding_mode", "backend"})


def refuse_code(path: Path) -> None:
    """Raise unless a file of torch.export holds operators and numbers only, as this package writes it.

    Raises:
        ValueError: it is no such file, or torch would run something of it; the message says what.
    """
    with _opened(path) as archive:
        entries = dict(_entries(archive))
        if any(name.startswith(COMPILED) for name in entries):
            raise ValueError(f"{path} holds machine code; if you trust it, give it a name that ends in .aoti.pt2")
        for name, info in entries.items():
            if not ENTRY.fullmatch(name) or (name == EMPTY and info.file_size):
                raise _refused(path, f"the entry {printable(name)}, which torch reads as Python objects")
        if MODEL not in entries:
            raise ValueError(f"{path} is no program of torch.export")
        for name, info in entries.items():
            if name.endswith(".json"):
                try:
                    _check(_json(archive, info, path), "")
                except RecursionError as error:
                    raise _refused(path, "values nested without end") from error
                except ValueError as error:
                    raise _refused(path, str(error)) from error


def document_in(path: Path) -> str:
    """Return the document in a file of torch, traced or compiled, without opening the rest of it.

    Raises:
        ValueError: it holds none.
    """
    with _opened(path) as archive:
        for name, info in _entries(archive):
            if name == DOCUMENT and info.file_size <= MAX_DOCUMENT_BYTES:
                return archive.read(info).decode("utf-8", "replace")
            if name.startswith(COMPILED) and name.endswith("_metadata.json"):
                found = _json(archive, info, path)
                if isinstance(found, dict) and isinstance(text := found.get(HEADER_KEY), str):
                    return text
    raise ValueError(f"{path} was not written by this package: it does not say how images are read")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no .pt2 file: {error}") from error


def _entries(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield the entries by their names in the one folder that torch puts them in."""
    for info in archive.infolist():
        yield info.filename.partition("/")[2], info


def _json(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> object:
    if info.file_size > MAX_JSON_BYTES:
        raise _refused(path, f"{info.file_size} bytes of description")
    try:
        return json.loads(archive.read(info))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _refused(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} holds {what}; files that `internimage export` writes hold no such thing, and nothing of it was run"
    )


def _check(value: object, key: str) -> None:
    """Raise a ValueError, which says what is there, unless a value of a description is harmless."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if (name in FOREIGN and inner is not None) or (name == "use_pickle" and inner is not False):
                raise ValueError(f"{printable(name)}, which torch reads as Python objects")
            if name == "metadata" and inner:
                raise ValueError("notes on its source code")
            if not TEXT.fullmatch(name):
                raise ValueError(f"the name {printable(name)}")
            _check(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        _check_expression(text)
    elif key == "target":
        _check_target(text)
    elif key in SPECS:
        _check_spec(json.loads(text)) if text else None
    elif not (key in IGNORED or (NAME if key in WORDS else TEXT).fullmatch(text)):
        raise ValueError(f"the text {printable(text)} as {key}")


def _check_expression(text: str) -> None:
    """Let sums, products and the like of sizes pass; sympy evaluates the text as Python."""
    wrong = ValueError(f"{printable(text)} as a size, which torch evaluates")
    if len(text) > MAX_EXPRESSION:
        raise wrong
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, MemoryError) as error:
        raise wrong from error
    calls = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Name):
            fits = node.id in FUNCTIONS if id(node) in calls else re.fullmatch(r"[su]\d+", node.id) is not None
        elif isinstance(node, ast.Constant):
            fits = isinstance(node.value, int | float) or re.fullmatch(r"\w{1,20}", str(node.value)) is not None
        else:
            fits = isinstance(node, ast.Expression | ast.Call | ast.keyword | ast.Load | ast.UnaryOp | ast.USub)
        if not fits:
            raise wrong


def _check_target(text: str) -> None:
    """Let operators pass that take tensors and numbers: some of torch's own read and write files."""
    if not TARGET.fullmatch(text):
        raise ValueError(f"a call of {printable(text)}")
    if not text.startswith("torch.ops."):
        return
    _, _, library, name, overload = text.split(".")
    packet = getattr(getattr(torch.ops, library), name, None)
    found = getattr(packet, overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"a call of {printable(text)}, which is not in this release of torch")
    for argument in found._schema.arguments:
        if "str" in str(argument.type) and argument.name not in STRING_ARGUMENTS:
            raise ValueError(f"a call of {printable(text)}")


def _check_spec(value: object) -> None:
    """Let tuples, lists and dictionaries of tensors pass."""
    if isinstance(value, dict):
        if value.get("type") not in CONTAINERS or not re.fullmatch(
            r'null|\[[\w", ]*\]', str(value.get("context") or "null")
        ):
            raise ValueError(f"inputs or outputs of the type {printable(value.get('type'))}")
        _check_spec(value.get("children_spec"))
    elif isinstance(value, list):
        for inner in value:
            _check_spec(inner)
