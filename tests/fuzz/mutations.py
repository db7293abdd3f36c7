"""Damage to files, drawn from a seed: the same seed gives the same damage on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Change single bits anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 16))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite_head(data: bytes, rng: random.Random) -> bytes:
    """Overwrite bytes of the header with extreme or random ones."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 6))):
        changed[rng.randrange(min(len(changed), 96))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the file off, often near its beginning or its end."""
    share = rng.choice((rng.random(), rng.random() * 0.1, 1 - rng.random() * 0.1))
    return data[: max(1, int(len(data) * share))]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    """Take a piece out of the middle."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 64) :] or b"\0"


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Repeat a piece, which shifts all that follows."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 64)]
    return data[:start] + piece * rng.choice((2, 3, 200)) + data[start:]


def insert_noise(data: bytes, rng: random.Random) -> bytes:
    """Write random bytes over a piece."""
    start = rng.randrange(len(data))
    noise = rng.randbytes(rng.randrange(1, 48))
    return data[:start] + noise + data[start + len(noise) :]


def append(data: bytes, rng: random.Random) -> bytes:
    """Add something behind the end."""
    return data + rng.choice((b"\0" * 100, rng.randbytes(100), data))


MUTATIONS: tuple[Mutation, ...] = (flip_bits, overwrite_head, truncate, cut_out, repeat, insert_noise, append)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Damage a file in one or two ways."""
    for mutation in rng.sample(MUTATIONS, rng.choice((1, 1, 2))):
        data = mutation(data, rng)
    return data
