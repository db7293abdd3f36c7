"""What every reading of a foreign file shares: errors that name it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from internimage.errors import CheckpointMismatch, UnknownName, printable

# What reading and believing a damaged or hostile file may raise inside of this package, of torch and of Python.
WRONG_CONTENT = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, RuntimeError)
MESSAGE_CHARACTERS = 600
SOURCE_CHARACTERS = 250


@contextlib.contextmanager
def about(source: str) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a foreign file into one short sentence that names it.

    Raises:
        ValueError: something went wrong inside; a mismatch and an unknown name pass as they are.
    """
    name = printable(source, SOURCE_CHARACTERS)
    try:
        yield
    except (CheckpointMismatch, UnknownName):
        raise
    except WRONG_CONTENT as error:
        text = whole = str(error) or type(error).__name__
        if isinstance(error, LookupError | ArithmeticError | AttributeError | RecursionError):
            text = f"its content makes no sense ({type(error).__name__}: {text})"
        if text.startswith(source):
            text = text[len(source) :].removeprefix(":").lstrip()
            text = text if text.startswith(("holds", "is", "was", "lacks", "has")) else f": {text}"
            short = f"{name}{'' if text.startswith(':') else ' '}{printable(text, MESSAGE_CHARACTERS)}"
        else:
            short = f"{name}: {printable(text, MESSAGE_CHARACTERS)}"
        # A traceback shows the first error as well, so it stays only where it is as harmless as the sentence.
        raise ValueError(short) from (error if printable(whole, MESSAGE_CHARACTERS) == whole else None)
