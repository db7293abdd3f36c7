"""What is served, and within which limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from internimage.ranges import Range, Ranged

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
GIB = 1 << 30


@dataclass(frozen=True)
class Limits(Ranged):
    """What a client may ask for; beyond it, the request is refused and nothing else is disturbed.

    Args:
        body_bytes: size of a request.
        pixels: height x width of an image, checked before it is decoded.
        images: images in one request.
        queued_images: images that wait for one model.
        requests: predictions in progress at one time, those whose bodies still arrive among them.
        held_bytes: size of all requests in progress together.
        body_seconds: time in which a request has to arrive.
        seconds: time in which it is answered; a worker that needs longer for one batch is started anew.
    """

    body_bytes: Annotated[int, Range(1 << 10, 16 * GIB)] = 32 << 20
    pixels: Annotated[int, Range(1, 2_000_000_000)] = 50_000_000
    images: Annotated[int, Range(1, 10_000)] = 32
    queued_images: Annotated[int, Range(1, 1_000_000)] = 256
    requests: Annotated[int, Range(1, 100_000)] = 256
    held_bytes: Annotated[int, Range(1 << 10, 1024 * GIB)] = 1 << 30
    body_seconds: Annotated[float, Range(0.01, 86_400)] = 30.0
    seconds: Annotated[float, Range(0.01, 86_400)] = 60.0


@dataclass(frozen=True)
class Batching(Ranged):
    """How images of several requests come into one forward pass.

    Args:
        images: images in one forward pass at most.
        delay_ms: how long the first image of a batch waits for others while a worker has nothing to do.
    """

    images: Annotated[int, Range(1, 4096)] = 8
    delay_ms: Annotated[float, Range(0, 60_000)] = 5.0


@dataclass(frozen=True)
class Served:
    """A model and the name that its clients know.

    Args:
        name: its name in addresses.
        source: a name of the catalog, a file or a folder, see `internimage.load`.
    """

    name: str
    source: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a served model needs a name of letters, digits, '.', '_' and '-', given {self.name!r}; "
                "write NAME=MODEL, for example pets=runs/pets"
            )


@dataclass(frozen=True)
class Serving(Ranged):
    """Everything that a server needs to know.

    Args:
        models: what is served.
        host: address to listen on; "0.0.0.0" for all of the machine.
        port: port to listen on, 0 for a free one.
        workers: processes that hold the models, each with all of them.
        device: where the models run.
        dtype: floating type of weights and pixels, a name of torch.
        backend: operator backend, see `internimage.ops.dcnv3`.
        batching: how images come into batches.
        limits: what a client may ask for.
        api_keys: keys, one of which a client has to send; none opens the server to everybody.
        origins: addresses of web pages that may use the server from a browser, besides its own.
        has_page: whether the page to try the models is there.
    """

    models: tuple[Served, ...]
    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65_535)] = 8000
    workers: Annotated[int, Range(1, 1024)] = 1
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "auto"
    batching: Batching = field(default_factory=Batching)
    limits: Limits = field(default_factory=Limits)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    has_page: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names:
            raise ValueError("expected at least one model to serve, given none; see `internimage list`")
        if twice:
            raise ValueError(f"two models have the name {twice[0]}; give one of them another one: NAME=MODEL")


def named_models(texts: Sequence[str]) -> tuple[Served, ...]:
    """Read models as the command line gives them: MODEL, or NAME=MODEL; files are named without their suffix.

    Raises:
        ValueError: a name cannot be part of an address.

    Example:
        >>> [model.name for model in named_models(["internimage_pico_fashion", "pets=runs/1/best.safetensors"])]
        ['internimage_pico_fashion', 'pets']
    """
    return tuple(_named(text) for text in texts)


def _named(text: str) -> Served:
    name, sign, source = text.partition("=")
    if sign and not Path(text).exists():
        return Served(name, source)
    path = Path(text)
    return Served(path.stem if path.is_file() else path.name, text)
