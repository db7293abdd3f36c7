"""Reading files of `torch.save` that come from anywhere, without running anything that is in them.

A pickle may name any function and have it called. Three barriers stand before that: its instructions are followed
first, without unpickling (`pickle_scan`); names outside a short list become inert placeholders or, where they belong to
Python, to the operating system or to torch itself, refuse the file; and torch unpickles with `weights_only=True`, which
calls nothing but what builds tensors. Configuration objects of old training runs (yacs, argparse, numpy scalars) thus
load as plain data.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import torch

from internimage.checkpoints.formats.pickle_scan import scan
from internimage.errors import printable

# The largest description of a checkpoint (all but the tensors); InternImage-G with its optimizer takes under 2 MiB.
MAX_PICKLE_BYTES = 64 * 2**20
LEGACY_PICKLES = 5  # magic number, protocol version, system, object, storage keys

# What builds tensors and the dictionaries around them.
CALLED_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "builtins.set",
    "builtins.complex",
    "_codecs.encode",
}
# Types of tensors and storages are mentioned, never called.
TENSOR_NAMES = {
    *CALLED_NAMES,
    "torch.Tensor",
    *(str(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)),
    *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char")),
    *(f"torch.{kind}Storage" for kind in ("Byte", "Bool")),
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
}
# Modules whose other names refuse a file: no checkpoint of weights needs them.
REFUSED_MODULES = {"builtins", "torch", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy", "pty"}
# What torch, pickle and zipfile raise over damaged content; seen in files damaged at random.
BROKEN_FILE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, zipfile.BadZipFile, NotImplementedError, struct.error),
)


class InertMapping:
    """Stands for a foreign object; being built, it becomes an empty dictionary that takes items and attributes."""

    def __new__(cls, *_: object) -> OrderedDict:
        """Return the dictionary; torch fills none but its own kinds of dictionaries."""
        return OrderedDict()


class InertObject:
    """Stands for a foreign object whose state is no dictionary, such as a numpy scalar; keeps nothing of it."""

    def __new__(cls, *_: object) -> InertObject:
        """Take any arguments."""
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def load_torch_file(path: Path) -> object:
    """Read a file of `torch.save` with tensors on the CPU, mapped from the file where its format allows.

    Args:
        path: zip format (torch 1.6 and later) or the older plain pickle format.

    Returns:
        The saved object; foreign objects in it are inert.

    Raises:
        ValueError: the file is damaged, no checkpoint, too large in its description, or names something dangerous.
    """
    try:
        is_zip = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, on escapes in texts that are refused anyway
            names = _names_in_zip(path) if is_zip else _names_in_legacy_file(path)
        _refuse_dangerous(names, path)
        kinds = {name: InertObject if name.startswith("numpy.") else InertMapping for name in names - TENSOR_NAMES}
        known = torch.serialization.safe_globals([(kind, name) for name, kind in kinds.items()])
        with known, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on old storages and protocols are not for our users
            return _without_attributes(torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip))
    except BROKEN_FILE as error:
        if isinstance(error, UnsafeFile):
            raise
        reason = printable(str(error).split("\n", 1)[0] or type(error).__name__, 300)
        raise ValueError(f"{printable(path)} is no readable torch checkpoint: {reason}{_guess(path)}") from None


class UnsafeFile(ValueError):
    """A file that names something no checkpoint needs."""


def _names_in_zip(path: Path) -> set[str]:
    """Return the names in the pickle of a zip checkpoint."""
    with zipfile.ZipFile(path) as archive:
        _check_entries(archive, path.stat().st_size)
        pickles = [entry for entry in archive.infolist() if entry.filename.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"it holds {len(pickles)} pickles named data.pkl, expected one")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise UnsafeFile(
                f"{printable(path)}: its description has {pickles[0].file_size} bytes, more than {MAX_PICKLE_BYTES}"
            )
        return _names(io.BytesIO(archive.read(pickles[0])))


def _check_entries(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Raise unless the entries of an archive are as torch writes them: whole, apart, each once."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it holds compressed entries, which torch never writes")
    if len({entry.filename.casefold() for entry in entries}) < len(entries):
        raise ValueError("it holds several entries of one name, of which readers choose different ones")
    if any(entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("its entries have another size than they claim")
    if any(not 0 <= entry.header_offset < file_bytes for entry in entries):
        raise ValueError("its entries lie outside of the file")
    if sum(entry.file_size for entry in entries) > file_bytes:
        raise ValueError(f"its entries claim more bytes than the {file_bytes} of the file")


def _names_in_legacy_file(path: Path) -> set[str]:
    """Return the names in the pickles in front of the tensors of an old checkpoint."""
    with path.open("rb") as file:
        names: set[str] = set()
        for _ in range(LEGACY_PICKLES):
            names |= _names(file)
            if file.tell() > MAX_PICKLE_BYTES:
                raise UnsafeFile(f"{printable(path)}: its description has more than {MAX_PICKLE_BYTES} bytes")
        return names


def _names(file: BinaryIO) -> set[str]:
    """Return the dotted names in the next pickle of a file."""
    return scan(file, TENSOR_NAMES, TENSOR_NAMES - CALLED_NAMES)


def _without_attributes(content: object) -> object:
    """Take away the attributes that a pickle gave to its dictionaries, where they would hide `items` or `get`."""
    waiting, seen = [content], {id(content)}
    while waiting:
        value = waiting.pop()
        inner: list[object] = []
        if isinstance(value, OrderedDict):
            vars(value).clear()
        if isinstance(value, dict):
            inner = [*dict.keys(value), *dict.values(value)]
        elif isinstance(value, list | tuple | set):
            inner = list(value)
        for part in inner:
            if isinstance(part, dict | list | tuple | set) and id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return content


def _refuse_dangerous(names: set[str], path: Path) -> None:
    """Raise if a name belongs to Python, the operating system or torch and builds no tensor."""
    dangerous = sorted(name for name in names - TENSOR_NAMES if name.split(".", 1)[0] in REFUSED_MODULES)
    if dangerous:
        raise UnsafeFile(
            f"{printable(path)} was refused, nothing in it was run: it asks for "
            f"{', '.join(printable(name, 60) for name in dangerous[:5])}, which no checkpoint "
            "of weights needs. If you trust its author, ask for a file with the state_dict alone"
        )


def _guess(path: Path) -> str:
    """Say what the file looks like, if it looks like a common mistake."""
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if not head:
        return "; the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "; it is a pointer of git-lfs, run `git lfs pull`"
    if head.startswith((b"<!doctype html", b"<html")):
        return "; it is a web page, the download led to a login or error page"
    return ""
