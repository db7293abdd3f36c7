"""One of the processes of test_measured.py: worker.py STRATEGY RECIPE PLAN_FILE [KEY=VALUE ...].

Trains three steps on made-up images and writes the most bytes that the allocator of torch had given out at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.profiler import ProfilerActivity, profile

from internimage.backbones.blocks import Block
from internimage.training import recipe
from internimage.training.device import Losses
from internimage.training.ema import build_ema
from internimage.training.optim import build_optimizer, param_groups
from internimage.training.parallel.launch import build_engine
from internimage.training.planning.step import classes
from internimage.training.setup import training_of

CPU = torch.device("cpu")
CLASSES = 10


def train(strategy: str, name: str, overrides: list[str]) -> None:
    """Train as the loop does; FSDP2 by torch itself."""
    chosen = recipe(name).with_overrides(overrides)
    task = training_of(chosen)
    engine = build_engine(CPU, chosen)
    model: nn.Module = task.build(chosen, classes(CLASSES)).train()
    batch = task.example_batch(chosen, model, chosen.data.batch_size)
    if strategy == "fsdp2":
        for module in list(model.modules()):
            if isinstance(module, Block):
                fully_shard(module)
        fully_shard(model)
    else:
        model = engine.adapt(model)
    average = build_ema(model, chosen.ema) if chosen.ema.decay and strategy != "fsdp2" else None
    groups = param_groups(model, chosen.layer_rules(), depths=chosen.model.config.backbone.depths)
    optimizer = build_optimizer(groups, chosen.optimizer)
    losses: Callable[[object], dict[str, Tensor]] = Losses(model, lambda one: task.loss(chosen, model, one, CPU))
    if strategy == "ddp":
        losses, optimizer = engine.prepare(losses, optimizer)
    for _ in range(3):
        with contextlib.nullcontext() if strategy == "fsdp2" else engine.autocast():
            loss = sum(losses(batch).values(), torch.zeros(()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(model)
        del loss


def main(strategy: str, name: str, out: str, *overrides: str) -> None:
    """Write the peak of this process."""
    if strategy == "fsdp2":
        dist.init_process_group("gloo")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(strategy, name, list(overrides))
    trace = Path(f"{out}.{os.environ.get('RANK', '0')}.trace")
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    peak = max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")
    trace.unlink()
    Path(f"{out}.{os.environ.get('RANK', '0')}").write_text(str(peak))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
