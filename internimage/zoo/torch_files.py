"""Reading files of `torch.save` that come from anywhere, without running anything that is in them.

A pickle may name any function and have it called. Three barriers stand before that: every name in the file is read
first, without unpickling; names outside a short list become inert placeholders or, where they belong to Python, to the
operating system or to torch itself, refuse the file; and torch unpickles with `weights_only=True`, which calls nothing
but what builds tensors. Configuration objects of old training runs (yacs, argparse, numpy scalars) thus load as plain
data.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickle
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

# The largest description of a checkpoint (all but the tensors); InternImage-G with its optimiser takes under 2 MiB.
MAX_PICKLE_BYTES = 64 * 2**20
MAX_OPCODES = 5_000_000
MAX_TUPLE = 1_000_000
LEGACY_PICKLES = 5  # magic number, protocol version, system, object, storage keys

TENSOR_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "builtins.set",
    "builtins.complex",
    "_codecs.encode",
    *(str(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)),
    *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char")),
    *(f"torch.{kind}Storage" for kind in ("Byte", "Bool")),
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
}
# Modules whose other names refuse a file: no checkpoint of weights needs them.
REFUSED_MODULES = {"builtins", "torch", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy", "pty"}
BROKEN_FILE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(AssertionError, OverflowError, MemoryError, zipfile.BadZipFile, NotImplementedError),
)


class InertMapping:
    """Stands for a foreign object; being built, it becomes an empty dictionary that takes items and attributes."""

    def __new__(cls, *_: Any) -> OrderedDict:
        """Return the dictionary; torch fills none but its own kinds of dictionaries."""
        return OrderedDict()


class InertObject:
    """Stands for a foreign object whose state is no dictionary, such as a numpy scalar; keeps nothing of it."""

    def __new__(cls, *_: Any) -> InertObject:
        """Take any arguments."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def load_torch_file(path: Path) -> Any:
    """Read a file of `torch.save` with tensors on the CPU, mapped from the file where its format allows.

    Args:
        path: zip format (torch 1.6 and later) or the older plain pickle format.

    Returns:
        The saved object; foreign objects in it are inert.

    Raises:
        ValueError: the file is damaged, no checkpoint, too large in its description, or names something dangerous.
    """
    is_zip = zipfile.is_zipfile(path)
    try:
        names = _names_in_zip(path) if is_zip else _names_in_legacy_file(path)
        _refuse_dangerous(names, path)
        placeholders: list[Any] = [(_placeholder(name), name) for name in sorted(names - TENSOR_NAMES)]
        with torch.serialization.safe_globals(placeholders), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on old storages and protocols are not for our users
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except BROKEN_FILE as error:
        if isinstance(error, UnsafeFile):
            raise
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise ValueError(f"{path} is no readable torch checkpoint: {reason}{_guess(path)}") from error


class UnsafeFile(ValueError):
    """A file that names something no checkpoint needs."""


def _names_in_zip(path: Path) -> set[str]:
    """Return the names in the pickle of a zip checkpoint."""
    with zipfile.ZipFile(path) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"it holds {len(pickles)} pickles named data.pkl, expected one")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it holds compressed entries, which torch never writes")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise UnsafeFile(f"{path}: its description has {pickles[0].file_size} bytes, more than {MAX_PICKLE_BYTES}")
        return set(_names(io.BytesIO(archive.read(pickles[0]))))


def _names_in_legacy_file(path: Path) -> set[str]:
    """Return the names in the pickles in front of the tensors of an old checkpoint."""
    with path.open("rb") as file:
        names: set[str] = set()
        for _ in range(LEGACY_PICKLES):
            names.update(_names(file))
            if file.tell() > MAX_PICKLE_BYTES:
                raise UnsafeFile(f"{path}: its description has more than {MAX_PICKLE_BYTES} bytes")
        return names


def _names(file: BinaryIO) -> Iterator[str]:
    """Yield the dotted names in the next pickle of a file, as Python 3 spells them, without unpickling."""
    tuples = TupleSizes()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPCODES:
            raise ValueError(f"its pickle has more than {MAX_OPCODES} instructions")
        if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"its pickle uses {opcode.name}, which torch never writes; save it again with torch.save")
        if tuples.after(opcode, argument) > MAX_TUPLE:
            raise ValueError(f"its pickle holds tuples that unfold to more than {MAX_TUPLE} entries")
        if opcode.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            yield f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


class TupleSizes:
    """Follows the stack of a pickle and knows how many entries each tuple would have, written out.

    Tuples that hold one another twice and more grow with every step without taking room in the file; as a key of a
    dictionary such a tuple is hashed entry by entry, which need not end.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[Any, int] = {}

    def after(self, opcode: pickletools.OpcodeInfo, argument: Any) -> int:
        """Follow one instruction; return the size of what lies on top of the stack."""
        if opcode.name == "MARK":
            self.marks.append(len(self.sizes))
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.sizes[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            self.sizes.append(self.memo[argument])
        else:
            taken = self._take(opcode.stack_before)
            size = 1 + sum(taken) if opcode.name.startswith("TUPLE") else 1
            self.sizes += [size] * len(opcode.stack_after)
        return self.sizes[-1] if self.sizes else 0

    def _take(self, operands: list[pickletools.StackObject]) -> list[int]:
        """Pop the operands of an instruction: a fixed number, and all above the last mark if it asks for them."""
        cut, fixed = len(self.sizes), len(operands)
        if pickletools.markobject in operands:
            cut, fixed = self.marks.pop(), operands.index(pickletools.markobject)
        taken = self.sizes[cut - fixed :]
        del self.sizes[cut - fixed :]
        return taken


def _refuse_dangerous(names: set[str], path: Path) -> None:
    """Raise if a name belongs to Python, the operating system or torch and builds no tensor."""
    dangerous = sorted(name for name in names - TENSOR_NAMES if name.split(".", 1)[0] in REFUSED_MODULES)
    if dangerous:
        raise UnsafeFile(
            f"{path} was refused, nothing in it was run: it asks for {', '.join(dangerous[:5])}, which no checkpoint "
            "of weights needs. If you trust its author, ask for a file with the state_dict alone"
        )


def _placeholder(name: str) -> type:
    """Choose the inert class for a foreign name."""
    return InertObject if name.startswith("numpy.") else InertMapping


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
