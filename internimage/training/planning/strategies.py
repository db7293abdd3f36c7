"""How devices share a model, and what each of them then holds and sends.

Counted in bytes a device. P numbers in all, T trained ones, N devices.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields

from internimage.training.planning.step import Counts

FULL, HALF = 4, 2  # bytes of a number
# Defaults of DeepSpeed: numbers that are reduced together, and gathered ones that stay.
REDUCE_BUCKET, MAX_LIVE = 500_000_000, 1_000_000_000
# What DeepSpeed holds beside what is known of it, in bytes of a number. Fitted to the published memory of H, of which
# all rows are met within 10 %, see tests/training/planning/test_published.py; it was seen for no other model.
DEEPSPEED_BESIDE = 4


@dataclass(frozen=True)
class Strategy:
    """How devices share a model.

    Args:
        name: what it is called.
        deepspeed: whether DeepSpeed does it, which keeps a full copy of the weights beside the moments.
        splits_optimizer: each device has its part of the moments.
        splits_gradients: ... and of the gradients.
        splits_weights: ... and of the weights, which are gathered when they are needed.
        offloads: the memory of the host holds the optimizer, and split weights, too.
    """

    name: str
    deepspeed: bool = False
    splits_optimizer: bool = False
    splits_gradients: bool = False
    splits_weights: bool = False
    offloads: bool = False


_SPLIT = dict(splits_optimizer=True, splits_gradients=True, splits_weights=True)
STRATEGIES = (
    Strategy("one device"),
    Strategy("ddp"),
    Strategy("zero1", deepspeed=True, splits_optimizer=True),
    Strategy("zero2", deepspeed=True, splits_optimizer=True, splits_gradients=True),
    Strategy("zero2_offload", deepspeed=True, splits_optimizer=True, splits_gradients=True, offloads=True),
    Strategy("zero3", deepspeed=True, **_SPLIT),
    Strategy("zero3_offload", deepspeed=True, offloads=True, **_SPLIT),
    Strategy("fsdp", **_SPLIT),
    Strategy("fsdp_offload", offloads=True, **_SPLIT),
)


@dataclass(frozen=True)
class Load:
    """What a run puts on its devices, whatever the strategy.

    Args:
        counts: sizes of the model.
        devices: N.
        is_half: whether it computes in half precision.
        moments: numbers that the optimizer keeps for each trained one.
        has_average: whether a running average of the weights is kept.
        accumulation: batches of a step.
        reserve: bytes of a device that nothing here counts.
        compresses: whether ddp sends gradients in half precision.
        halves_weights: whether DeepSpeed keeps weights and gradients in half precision, as the original did; here
            they are float32 and computed under autocast.
    """

    counts: Counts
    devices: int
    is_half: bool
    moments: int
    has_average: bool
    accumulation: int
    reserve: int = 0
    compresses: bool = False
    halves_weights: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Args:
        weights: parameters and buffers.
        gradients: of the trained ones.
        optimizer: moments, and the full copy of half weights.
        average: the running average.
        gathered: weights of others, and what is on the way to them.
        reserve: what cannot be counted: driver, libraries, communication.
        activations: what a batch needs besides.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    reserve: int
    activations: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def memory_of(strategy: Strategy, load: Load) -> Memory:
    """Return what a device holds without the activations; what lies in the memory of the host does not count."""
    counts, parts = load.counts, load.devices
    own = HALF if load.halves_weights and strategy.deepspeed else FULL
    kept = FULL * (load.moments + (1 if _has_copy(strategy, load) else 0))
    weights = own * _part(counts.parameters, parts, strategy.splits_weights)
    # FSDP2 keeps gradients whole until the last batch of a step.
    splits_gradients = strategy.splits_gradients and (strategy.deepspeed or load.accumulation == 1)
    gradients = own * _part(counts.trained, parts, splits_gradients)
    optimizer = kept * _part(counts.trained, parts, strategy.splits_optimizer)
    average = FULL * _part(counts.parameters, parts, strategy.splits_optimizer) if load.has_average else 0
    if strategy.offloads:
        optimizer, gradients = 0, 0 if splits_gradients else gradients
        weights, average = 0 if strategy.splits_weights else weights, 0
    reserve = load.reserve + (DEEPSPEED_BESIDE * counts.parameters if strategy.deepspeed and load.reserve else 0)
    return Memory(weights + counts.buffers, gradients, optimizer, average, _gathered(strategy, load), reserve)


def memory_in_validation(strategy: Strategy, load: Load) -> int:
    """Return the bytes of a device while fsdp has a whole copy beside its shards; 0 for others, which need no more."""
    if strategy.deepspeed or not strategy.splits_weights:
        return 0
    kept = dataclasses.replace(memory_of(strategy, load), gradients=0, gathered=0)
    return kept.total + FULL * load.counts.parameters + load.counts.buffers


def host_memory(strategy: Strategy, load: Load) -> int:
    """Return the bytes that the host holds for each device."""
    if not strategy.offloads:
        return 0
    parts, counts = load.devices, load.counts
    kept = FULL * (load.moments + (2 if strategy.deepspeed else 1))  # with the gradients
    split = FULL * -(-counts.parameters // parts) if strategy.splits_weights else 0
    own = split // 2 if strategy.deepspeed and load.halves_weights else split
    average = FULL * -(-counts.parameters // parts) if load.has_average else 0
    return kept * -(-counts.trained // parts) + own + average


def sent_per_step(strategy: Strategy, load: Load) -> int:
    """Return the bytes that a device sends in a step, by rings: (N - 1) / N of what is reduced or gathered."""
    counts, batches = load.counts, load.accumulation
    own = HALF if load.halves_weights and strategy.deepspeed else FULL
    gradients, weights = own * counts.trained, own * counts.parameters
    if strategy.splits_weights:  # gathered forward and backward for each batch
        whole = batches * 2 * weights + (batches if strategy.deepspeed else 1) * gradients
    elif strategy.splits_gradients:
        whole = batches * gradients + weights
    else:
        gradients = gradients // 2 if load.compresses and not strategy.deepspeed else gradients
        whole = gradients + (weights if strategy.splits_optimizer else gradients)
    return whole * (load.devices - 1) // load.devices


def _has_copy(strategy: Strategy, load: Load) -> bool:
    """Whether DeepSpeed has a copy of what it splits; ZeRO 3 in float32 moves the weights themselves."""
    return strategy.deepspeed and (load.halves_weights or strategy.offloads or not strategy.splits_weights)


def _part(numbers: int, parts: int, is_split: bool) -> int:
    return -(-numbers // parts) if is_split else numbers


def _gathered(strategy: Strategy, load: Load) -> int:
    """Return the bytes of what is gathered and of the buckets on the way."""
    counts = load.counts
    if strategy.deepspeed:
        bucket = min(counts.trained, REDUCE_BUCKET)
        live = min(counts.parameters, MAX_LIVE) if strategy.splits_weights else 0
        return (HALF if load.halves_weights else FULL) * (bucket + live)
    if not strategy.splits_weights:
        return 0
    # A block at work, the next one on its way, the gradient of one; what is no block, all the time.
    return FULL * (3 * counts.largest_block + counts.outside_blocks) + counts.buffers
