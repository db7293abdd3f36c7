"""What decoders have to say besides errors: one line with the name of the file, instead of their own on stderr.

Pillow warns through Python. The libtiff inside of Pillow writes to file descriptor 2 from C, without naming the file.
Redirecting that descriptor would swallow what other threads write, so libtiff's printing is switched off instead; that
a file cannot be read is in Pillow's error anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import PIL

log = logging.getLogger(__name__)
# Files that are reported in one process; a data set with a strange camera would fill the terminal.
MAX_REPORTED = 20
MAX_CHARACTERS = 300

_reported: set[str] = set()


def report_notes(name: str, notes: Sequence[str]) -> None:
    """Log what a decoder noted about a file, once for each file, in one line."""
    if not notes or name in _reported or len(_reported) > MAX_REPORTED:
        return
    _reported.add(name)
    if len(_reported) > MAX_REPORTED:
        log.warning("%d files have such notes; those of further files are not shown", MAX_REPORTED)
        return
    different = list(dict.fromkeys(" ".join(note.split()) for note in notes))
    rest = f" (and {len(different) - 1} more notes)" if len(different) > 1 else ""
    log.warning("%s: read, but the decoder notes: %s%s", name, different[0][:MAX_CHARACTERS], rest)


@cache
def silence_libtiff() -> bool:
    """Switch off the printing of the libtiff that Pillow brings with it; return whether it was found.

    Wheels for Linux and macOS keep it in a library of its own. Where it is built into Pillow, or is the system's,
    nothing is changed.
    """
    package = Path(PIL.__file__).parent
    places = (package.parent / "pillow.libs", package / ".dylibs")
    for file in (found for place in places if place.is_dir() for found in sorted(place.glob("libtiff*"))):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(file))  # the one that Pillow has loaded, not a second one
            for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
                setter(None)
            return True
    return False
