"""What trackers show between two validations: losses, rates, speed, memory, gradient norm and loss scale."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from internimage import parallel
from internimage.training.device import Engine
from internimage.training.meters import Meters
from internimage.training.records.rows import Records


class StepTracking:
    """Gives trackers the values of steps, every `run.track_every` of them.

    Memory is in GiB: `device` is the peak of tensors on an accelerator, `resident` what the first process has of the
    machine's now, `peak_resident` the most so far.

    Args:
        records: of the run.
        engine: of this process.
        optimizer: its groups have the rates of the last step.
        batch_size: images of a batch of one process.
    """

    def __init__(self, records: Records, engine: Engine, optimizer: Optimizer, *, batch_size: int) -> None:
        self._records, self._engine, self._optimizer = records, engine, optimizer
        self._images = batch_size * engine.batches_per_step * parallel.world()
        self._seen: Meters | None = None
        self._sums: dict[str, float] = {}
        self._steps, self._time = 0, time.monotonic()

    def step(self, step: int, epoch: int, meters: Meters, *, gradient_norm: Tensor | None) -> None:
        """Give the means since the last time and present values where it is due; all processes call this.

        Args:
            step: steps of the run that are done.
            epoch: number of the epoch.
            meters: sums since the last validation.
            gradient_norm: of the last step, before it was limited.
        """
        every = self._records.track_every
        if not every or step % every:
            return
        values = self._since_last(meters)
        values |= {f"steps/lr/x{group['lr_multiplier']:.4g}": group["lr"] for group in self._optimizer.param_groups}
        if gradient_norm is not None:
            values["steps/gradient_norm"] = float(gradient_norm)
        if self._engine.scaler.is_enabled():
            values["steps/loss_scale"] = self._engine.scaler.get_scale()
        self._records.track({"epoch": epoch, **values, **_memory(self._engine.device)}, step)

    def _since_last(self, meters: Meters) -> dict[str, float]:
        """Return means of losses, and images per second, since the last time or the last validation."""
        if self._seen is not meters:
            self._seen, self._sums, self._steps = meters, {}, 0
        # No name is the folder of another one: MLflow keeps values in files.
        sums = {
            "train_loss": float(meters.loss),
            **{f"loss/{name}": float(value) for name, value in meters.terms.items()},
        }
        steps, now = meters.steps - self._steps, time.monotonic()
        means = {name: parallel.mean((total - self._sums.get(name, 0.0)) / steps) for name, total in sums.items()}
        speed = self._images * steps / (now - self._time)
        self._sums, self._steps, self._time = sums, meters.steps, now
        return {**{f"steps/{name}": value for name, value in means.items()}, "steps/images_per_second": speed}


def _memory(device: torch.device) -> dict[str, float]:
    """Return the memory of this process in GiB; that of the machine where the system is Linux."""
    status, values = Path("/proc/self/status"), {}
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        kept = {"peak_resident": lines["VmHWM"], "resident": lines["VmRSS"]}
        values = {f"memory/{name}": int(text.split()[0]) / 2**20 for name, text in kept.items()}
    if device.type == "cuda":
        values["memory/device"] = torch.cuda.max_memory_allocated(device) / 2**30
    return values
