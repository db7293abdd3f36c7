"""A plan: strategies with what they need, and the command that runs one of them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from internimage.recipe import Recipe
from internimage.training.planning.step import Counts
from internimage.training.planning.strategies import Memory, Strategy

# What `internimage train` runs, and the settings that ask for it.
RUNNABLE: dict[str, tuple[str, ...]] = {
    "one device": (),
    "ddp": (),
    "fsdp": ("parallel.strategy=fsdp",),
    "fsdp_offload": ("parallel.strategy=fsdp", "parallel.offload=true"),
    "zero1": ("parallel.strategy=zero1",),
    "zero2": ("parallel.strategy=zero2",),
    "zero2_offload": ("parallel.strategy=zero2", "parallel.offload=true"),
    "zero3": ("parallel.strategy=zero3",),
    "zero3_offload": ("parallel.strategy=zero3", "parallel.offload=true"),
}

LARGEST_MACHINE = 8  # devices
# How the machines of a run find one another; MASTER is the name of one of them.
RENDEZVOUS = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "MASTER:29500")


@dataclass(frozen=True)
class Option:
    """A strategy with or without activation checkpointing.

    Args:
        strategy: how devices share the model.
        checkpointing: whether blocks are computed anew in the backward pass.
        memory: bytes of a device.
        host: bytes that the host holds for each device.
        sent: bytes that a device sends in a step.
        fits: whether the memory of a device is enough.
    """

    strategy: Strategy
    checkpointing: bool
    memory: Memory
    host: int
    sent: int
    fits: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        parts = {f"{name}_bytes": size for name, size in dataclasses.asdict(self.memory).items()}
        return {
            "strategy": self.strategy.name,
            "activation_checkpointing": self.checkpointing,
            "fits": self.fits,
            **parts,
            "total_bytes": self.memory.total,
            "host_bytes": self.host,
            "sent_bytes_per_step": self.sent,
        }


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Args:
        source: name or file of the recipe, for the command.
        recipe: with every setting as it will run.
        devices: that train together.
        memory: bytes of each device.
        counts: sizes of the model.
        options: each strategy, without and with activation checkpointing.
        highest_lr: of a group with multiplier 1.
        steps: optimizer steps of the run; None where the images of the data set are not known.
        images_per_second: of one device; None where it is not known.
        interconnect: bytes a second that a device sends; None where it is not known.
        assumptions: what the plan takes for granted, in sentences.
    """

    source: str
    recipe: Recipe
    devices: int
    memory: int
    counts: Counts
    options: tuple[Option, ...]
    highest_lr: float
    steps: int | None
    images_per_second: float | None
    interconnect: float | None
    assumptions: tuple[str, ...]

    @property
    def global_batch(self) -> int:
        """Images of a step."""
        return self.recipe.data.batch_size * self.devices * self.recipe.optimizer.accumulation_steps

    @property
    def chosen(self) -> Option | None:
        """The first option that fits and that `internimage train` runs; one without offload, and as the recipe is."""
        preferred = self.recipe.model.activation_checkpointing
        fitting = [option for option in self.options if option.fits and _runs(option.strategy, self.recipe)]
        return min(
            fitting,
            key=lambda option: (
                option.strategy.offloads,
                option.strategy.deepspeed,  # an extra
                option.checkpointing != preferred,
            ),
            default=None,
        )

    def seconds_of_sending(self, option: Option) -> float | None:
        """Return how long a step sends; None where the interconnect is not known."""
        return option.sent / self.interconnect if self.interconnect and self.devices > 1 else None

    @property
    def seconds(self) -> float | None:
        """How long the run takes, if nothing is sent while it computes; None where that is not known."""
        if self.steps is None or self.images_per_second is None:
            return None
        computing = self.global_batch / self.devices / self.images_per_second
        sending = None if self.chosen is None else self.seconds_of_sending(self.chosen)
        return self.steps * (computing + (sending or 0.0))

    def command(self, settings: Sequence[str] = ()) -> str | None:
        """Return the command that runs it, None where nothing fits that `internimage train` runs.

        More than eight devices are taken to stand in several machines of equally many; the command is that of each one.

        Args:
            settings: "key=value" texts that the recipe was changed by.
        """
        option = self.chosen
        if option is None:
            return None
        settings = list(dict.fromkeys([*settings, *RUNNABLE[option.strategy.name]]))
        if option.checkpointing != self.recipe.model.activation_checkpointing:
            settings.append(f"model.activation_checkpointing={str(option.checkpointing).lower()}")
        words = ["internimage", "train", self.source, "--data", "DATA", "--out", f"runs/{self.recipe.name}"]
        if self.devices > LARGEST_MACHINE:
            own = max(count for count in range(1, LARGEST_MACHINE + 1) if self.devices % count == 0)
            machines = ["--nnodes", str(self.devices // own), "--nproc-per-node", str(own)]
            words = ["torchrun", *machines, *RENDEZVOUS, "-m", *words]
        elif self.devices > 1:
            words += ["--processes", str(self.devices)]
        return shlex.join([*words, *(word for text in settings for word in ("--set", text))])

    def to_dict(self, settings: Sequence[str] = ()) -> dict[str, Any]:
        """Return JSON types; `settings` are those of `command`."""
        return {
            "recipe": self.recipe.name,
            "devices": self.devices,
            "memory_bytes": self.memory,
            "parameters": self.counts.parameters,
            "trained_parameters": self.counts.trained,
            "precision": self.recipe.run.precision,
            "batch_size": self.recipe.data.batch_size,
            "accumulation_steps": self.recipe.optimizer.accumulation_steps,
            "global_batch": self.global_batch,
            "highest_learning_rate": self.highest_lr,
            "steps": self.steps,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
            "strategies": [
                {**option.to_dict(), "sending_seconds_per_step": self.seconds_of_sending(option)}
                for option in self.options
            ],
            "command": self.command(settings),
            "assumptions": list(self.assumptions),
        }


def _runs(strategy: Strategy, recipe: Recipe) -> bool:
    """Whether `internimage train` runs a recipe so."""
    asked = recipe.parallel
    name = strategy.name.removesuffix("_offload")
    if name == "fsdp" and recipe.run.precision == "fp16":
        return False
    if strategy.splits_optimizer and asked.gradient_compression != "none":
        return False
    if asked.offload and not strategy.offloads:
        return False
    return strategy.name in RUNNABLE and asked.strategy in ("auto", "ddp" if name == "one device" else name)
