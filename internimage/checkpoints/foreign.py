"""What every reading of a foreign file shares: errors that name it, and no model that its tensors cannot fill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from internimage.backbones import BackboneConfig
from internimage.errors import CheckpointMismatch, UnknownName, printable
from internimage.flow import Checkpoint, TaskConfig

# What reading and believing a damaged or hostile file may raise inside of this package, of torch and of Python.
WRONG_CONTENT = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, RuntimeError)
MESSAGE_CHARACTERS = 600
SOURCE_CHARACTERS = 250
# Fewest parameters of a block of the smallest kind, and of a layer in a head.
BLOCK_TENSORS, LAYER_TENSORS = 10, 2


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


def check_description(config: TaskConfig | BackboneConfig, checkpoint: Checkpoint) -> None:
    """Raise if a described model has more layers than the tensors at hand can fill; nothing is built for it then.

    Raises:
        ValueError: the description and the tensors cannot belong together.
    """
    blocks, layers = config.num_blocks, 0 if isinstance(config, BackboneConfig) else config.num_head_layers
    held = len(checkpoint.shapes)
    if BLOCK_TENSORS * blocks + LAYER_TENSORS * layers > held:
        raise ValueError(
            f"the file describes a model of {blocks} blocks and {layers} layers in its head, but holds {held} tensors, "
            "too few for it; it is damaged or its description is of another model"
        )
