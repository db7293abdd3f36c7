"""What a pickle would do, told from its instructions without doing any of it.

A small pickle can keep Python busy for hours or end the process: tuples that unfold without end, tuples nested so
deeply that hashing them overflows the stack, text codecs of quadratic time, millions of calls. `scan` follows the
stack of a pickle as far as needed to refuse these, and says which names the pickle asks for.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
import time
from dataclasses import dataclass
from typing import BinaryIO

# InternImage-G with its average and its optimizer takes under 400,000 instructions, 30,000 calls and 40 levels.
MAX_OPCODES = 1_000_000
MAX_CALLS = 100_000
MAX_DEPTH = 200
MAX_TUPLE = 1_000_000
MAX_WORK = 20_000_000  # entries of tuples and lists, each time that something is made of them
MAX_FOREIGN_NAMES = 100
MAX_SECONDS = 20.0
CLOCK_EVERY = 20_000

PROTOCOL = 2
# All that torch reads with weights_only=True.
OPCODES = {
    *("GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK", "TUPLE"),
    *("TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"),
    *("EMPTY_SET", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINPERSID"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "LONG1", "PROTO", "STOP"),
}
CODECS = {"latin1", "latin-1", "iso-8859-1", "utf-8", "ascii"}
ENCODE = "_codecs.encode"


@dataclass(slots=True)
class Entry:
    """What is known of an object on the stack.

    Args:
        size: entries that it would have, written out.
        depth: levels of tuples, lists and calls in it.
        name: the dotted name of a class or function.
        codec: whether it is the name of a text codec that old checkpoints need.
        parts: entries of a short tuple.
        is_list: whether it is a list, which is never hashed.
    """

    size: int = 1
    depth: int = 1
    name: str | None = None
    codec: bool = False
    parts: tuple[Entry, ...] = ()
    is_list: bool = False


PLAIN, CODEC = Entry(), Entry(codec=True)  # shared by all numbers and texts, which nothing is put into


def scan(file: BinaryIO, harmless: set[str], uncalled: set[str]) -> set[str]:
    """Return the dotted names in the next pickle of a file, as Python 3 spells them.

    Args:
        file: stands at the start of a pickle; afterward behind it.
        harmless: names that do not count as foreign.
        uncalled: names of which nothing may be made.

    Raises:
        ValueError: the pickle is damaged, or reading it would take too long, too deep a stack or a strange call.
    """
    stack = Stack(harmless, uncalled)
    start = time.monotonic()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MAX_OPCODES:
                raise ValueError(f"its pickle has more than {MAX_OPCODES} instructions")
            if count % CLOCK_EVERY == 0 and time.monotonic() - start > MAX_SECONDS:
                raise ValueError(f"its pickle takes more than {MAX_SECONDS:g} seconds to look through")
            if opcode.name not in OPCODES:
                raise ValueError(
                    f"its pickle uses {opcode.name}, which torch never writes; save it again with torch.save"
                )
            if opcode.name == "PROTO" and int(argument or 0) > PROTOCOL:
                raise ValueError(
                    f"its pickle is of protocol {argument}, whose STACK_GLOBAL and other instructions torch never "
                    "writes; save it again with torch.save"
                )
            stack.follow(opcode, argument)
    except LookupError as error:
        raise ValueError("its pickle is damaged: an instruction lacks what it works on") from error
    return stack.names


class Stack:
    """Follows the stack of a pickle; knows the size and depth of what lies on it."""

    def __init__(self, harmless: set[str], uncalled: set[str]) -> None:
        self.harmless, self.uncalled = harmless, uncalled
        self.names: set[str] = set()
        self.foreign = 0
        self.entries: list[Entry] = []
        self.marks: list[int] = []
        self.memo: dict[object, Entry] = {}
        self.work = self.calls = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Follow one instruction.

        Raises:
            ValueError: it goes beyond a limit.
            LookupError: its operands are missing.
        """
        name, entries = opcode.name, self.entries
        if name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = entries[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            entries.append(self.memo[argument])
        elif name in ("BINUNICODE", "SHORT_BINSTRING"):
            entries.append(CODEC if argument in CODECS else PLAIN)
        elif name == "MARK":
            self.marks.append(len(entries))
        elif name == "GLOBAL":
            entries.append(Entry(name=self._named(argument)))
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
            self._grow(self._take(opcode, kept=1), is_list=name.startswith("APPEND"))
        elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
            entries.append(Entry())
        elif opcode.stack_before:
            made = self._made(name, self._take(opcode))
            entries += [made] * len(opcode.stack_after)
        else:
            entries += [PLAIN] * len(opcode.stack_after)

    def _named(self, argument: object) -> str:
        """Return the name of a class or function and remember it."""
        module, name = str(argument).split(" ", 1)
        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        full = f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"
        if full not in self.names:
            self.names.add(full)
            self.foreign += full not in self.harmless
            if self.foreign > MAX_FOREIGN_NAMES:
                raise ValueError(f"its pickle asks for more than {MAX_FOREIGN_NAMES} foreign classes")
        return full

    def _take(self, opcode: pickletools.OpcodeInfo, kept: int = 0) -> list[Entry]:
        """Pop the operands of an instruction: a fixed number, and all above the last mark if it asks for them.

        Args:
            opcode: the instruction.
            kept: operands at the bottom that stay on the stack.
        """
        operands = opcode.stack_before
        cut, fixed = len(self.entries), len(operands) - kept
        if pickletools.markobject in operands:
            cut, fixed = self.marks.pop(), operands.index(pickletools.markobject) - kept
        first = cut - fixed
        if first < kept:
            raise LookupError("empty stack")
        taken = self.entries[first:]
        del self.entries[first:]
        self.work += sum([entry.size for entry in taken])
        if self.work > MAX_WORK:
            raise ValueError(f"its pickle holds lists and tuples that unfold to more than {MAX_WORK} entries")
        return taken

    def _made(self, opcode: str, taken: list[Entry]) -> Entry:
        """Return what an instruction makes of its operands."""
        depth = _around(taken)
        if opcode in ("REDUCE", "NEWOBJ"):
            self._check_call(*taken)
        if opcode in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE"):
            size = 1 + sum(entry.size for entry in taken)
            if size > MAX_TUPLE:
                raise ValueError(f"its pickle holds tuples that unfold to more than {MAX_TUPLE} entries")
            return Entry(size, depth, parts=tuple(taken) if len(taken) <= 3 else ())
        return Entry(1, depth)

    def _check_call(self, function: Entry, arguments: Entry) -> None:
        """Refuse a call that no checkpoint needs, and too many of them."""
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise ValueError(f"its pickle makes more than {MAX_CALLS} calls")
        if function.name in self.uncalled:
            raise ValueError(f"its pickle calls {function.name}, which torch.save never writes")
        if function.name == ENCODE and len(arguments.parts) > 1 and not arguments.parts[1].codec:
            raise ValueError("its pickle encodes text by a codec that torch never uses; it uses latin1")

    def _grow(self, taken: list[Entry], *, is_list: bool) -> None:
        """Put entries into the container below them; only those of a list may be gone through again."""
        container = self.entries[-1]
        if container is PLAIN or container is CODEC:
            raise ValueError("its pickle is damaged: it puts entries into a number or a text")
        if is_list:
            container.is_list = True
            container.size += sum(1 if entry.is_list else entry.size for entry in taken)
        container.depth = max(container.depth, _around(taken))


def _around(entries: list[Entry]) -> int:
    """Return the depth of what holds some entries."""
    depth = 1 + max([entry.depth for entry in entries], default=0)
    if depth > MAX_DEPTH:
        raise ValueError(f"its pickle is nested more than {MAX_DEPTH} levels deep")
    return depth
