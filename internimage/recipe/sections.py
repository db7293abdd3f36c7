"""The sections that every recipe has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, Protocol, TypedDict, TypeVar

from internimage.options import Start
from internimage.ranges import Range

FromZero = Annotated[int, Range(0, math.inf)]
FromOne = Annotated[int, Range(1, math.inf)]
RateFromZero = Annotated[float, Range(0, math.inf)]
Fraction = Annotated[float, Range(0.0, 1.0)]


class ValidationReading(TypedDict):
    """How images are read in validation, as every task's evaluation takes it."""

    batch_size: int
    workers: int
    max_unreadable: int


class Running(TypedDict):
    """How a model runs in training, as every model takes it."""

    activation_checkpointing: bool
    frozen_stages: int
    backend: str


class ModelConfig(Protocol):
    """What the configurations of all models have: `backbone`, `num_classes`, `preprocess`, `class_names`."""

    @property
    def num_classes(self) -> int:
        """Classes of the model."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Their names."""
        ...


ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclass(frozen=True)
class ModelSettings(Generic[ConfigT]):
    """What is trained, and what it starts from.

    Args:
        config: the configuration of the model itself; the classes are those of the data.
        weights: catalog name or file of a whole model to start from, None for a random start.
        start: "published" starts from the published model of the recipe's name, "recipe" from what the recipe says;
            "auto" takes the published model unless the data is what the recipe was made for, see
            `internimage.training.own_data`. A choice of weights comes first.
        reset_head: start the layers with a row for each class afresh; needed where `weights` has other classes without
            names.
        activation_checkpointing: recompute blocks in the backward pass, which saves memory.
        frozen_stages: -1 trains everything; k >= 0 freezes the stem and the first k levels.
        backend: operator backend.
    """

    config: ConfigT
    weights: str | None = None
    start: Start = "auto"
    reset_head: bool = False
    activation_checkpointing: bool = False
    frozen_stages: Annotated[int, Range(-1, math.inf)] = -1
    backend: str = "auto"

    @property
    def running(self) -> Running:
        """How the model runs."""
        return Running(
            activation_checkpointing=self.activation_checkpointing,
            frozen_stages=self.frozen_stages,
            backend=self.backend,
        )

    @property
    def start_backbone(self) -> str | None:
        """Whose backbone alone the run starts from, None for another start."""
        return None

    @property
    def source(self) -> str:
        """What the weights of the first step are, in words."""
        if self.weights is None:
            return "random weights"
        return f"{self.weights} (whole model{', with new last layers' if self.reset_head else ''})"

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Raise ValueError if the data set has other classes than the recipe asks for."""


@dataclass(frozen=True)
class DataSettings:
    """How the data set is read.

    Args:
        batch_size: images of one forward pass on one device.
        workers: reading processes; 0 reads in the training process.
        holdout: training images set aside for validation; 0 validates on the data set's own validation part.
        max_unreadable: broken images that are skipped and reported before the run stops.
    """

    batch_size: FromOne = 128
    workers: FromZero = 8
    holdout: FromZero = 0
    max_unreadable: FromZero = 50

    def in_validation(self) -> ValidationReading:
        """Return how validation reads its images."""
        return ValidationReading(batch_size=self.batch_size, workers=self.workers, max_unreadable=self.max_unreadable)


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights move.

    Args:
        name: "adamw", or "sgd" with Nesterov momentum.
        weight_decay: decay of all tensors with two axes or more.
        betas: AdamW's moments.
        eps: AdamW's epsilon.
        momentum: of SGD.
        layer_decay: factor on the learning rate from each block to the one before it; 1 for none.
        clip_norm: largest gradient norm of a step, 0 for no limit.
        accumulation_steps: batches that make one step.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: RateFromZero = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    layer_decay: Fraction = 1.0
    clip_norm: RateFromZero = 5.0
    accumulation_steps: FromOne = 1


@dataclass(frozen=True)
class EmaSettings:
    """The running average of the weights, which is what a run delivers when it is on.

    Args:
        decay: fraction of the old average that stays at each step; 0 switches the average off.
        warmup: start with smaller decays, min(decay, (1 + n) / (10 + n)) at update n; for short runs.
        follow_steps: start by following the weights, decay * (1 - exp(-n / follow_steps)) at update n; 0 for not.
    """

    decay: Fraction = 0.9999
    warmup: bool = False
    follow_steps: FromZero = 0


@dataclass(frozen=True)
class RunSettings:
    """How a run behaves.

    Args:
        seed: start of all random numbers.
        precision: "fp32", "bf16" or "fp16" (with a scaled loss) for autocast, or "auto": bf16 where the device has
            instructions for it.
        threads: CPU threads of torch, 0 leaves the default.
        compile: "true", or a mode of torch.compile, compiles the backbone; the first step takes minutes longer. For one
            process and for "ddp".
        save_minutes: time between two saved states within an epoch; each validation is followed by one anyway.
        keep_states: states that stay, the newest ones; a run goes on from the one before where the newest is damaged.
        tensorboard: write TensorBoard events.
        trackers: services that show the run, besides TensorBoard.
        track_every: steps between two looks of the trackers at loss, rates, speed and memory.
        plot: draw the curves after each validation.
    """

    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    threads: FromZero = 0
    compile: Literal["false", "true", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "false"
    save_minutes: RateFromZero = 10.0
    keep_states: FromOne = 1
    tensorboard: bool = True
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    track_every: FromOne = 50
    plot: bool = True


@dataclass(frozen=True)
class ParallelSettings:
    """How several processes train together.

    Args:
        strategy: "ddp" gives each process the whole model; "fsdp" shares out parameters, gradients, moments and running
            average, of which each process keeps a shard; "zero1" (moments and average), "zero2" (and gradients) and
            "zero3" (and parameters) do so by DeepSpeed; "auto" is what accelerate launch asks for, else "ddp".
        offload: keep shards in the memory of the processor while they are not needed; not for "ddp".
        gradient_compression: type in which "ddp" exchanges gradients, "none" for their own; halves what goes over the
            network, and rounds.
        timeout_minutes: how long a process waits for the others before it fails, so that nothing hangs.
    """

    strategy: Literal["auto", "ddp", "fsdp", "zero1", "zero2", "zero3"] = "auto"
    offload: bool = False
    gradient_compression: Literal["none", "fp16", "bf16"] = "none"
    timeout_minutes: Annotated[float, Range(0.1, 1440.0)] = 10.0
