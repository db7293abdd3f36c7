"""One of the processes of test_measured.py: worker.py RECIPE OUT [KEY=VALUE ...].

Trains three steps on made-up images and writes the most bytes that the allocator of torch had given out at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from internimage import parallel
from internimage.training import recipe
from internimage.training.device import Losses
from internimage.training.optim import build_optimizer, param_groups
from internimage.training.parallel.launch import build_engine
from internimage.training.planning.step import classes
from internimage.training.setup import training_of

CPU = torch.device("cpu")
CLASSES = 10


def train(name: str, overrides: list[str]) -> None:
    """Train as the loop does."""
    chosen = recipe(name).with_overrides(overrides)
    task, engine = training_of(chosen), build_engine(CPU, chosen)
    model = engine.adapt(task.build(chosen, classes(CLASSES)).train())
    batch = task.example_batch(chosen, model, chosen.data.batch_size)
    losses = Losses(model, lambda one: task.loss(chosen, model, one, CPU), engine.autocast)
    engine.shard(losses)
    average = engine.average(model, chosen.ema) if chosen.ema.decay else None
    groups = param_groups(model, chosen.layer_rules(), depths=chosen.model.config.backbone.depths)
    prepared, optimizer = engine.prepare(losses, build_optimizer(groups, chosen.optimizer))
    for _ in range(3):
        with engine.accumulating(prepared):
            engine.backward(sum(prepared(batch).values(), torch.zeros(())))
        engine.step(optimizer, model.parameters(), clip_norm=chosen.optimizer.clip_norm)
        if average is not None:
            average.update_parameters(model)


def main(name: str, out: str, *overrides: str) -> None:
    """Write the peak of this process."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(name, list(overrides))
    trace = Path(f"{out}.{os.environ.get('RANK', '0')}.trace")
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    peak = max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")
    trace.unlink()
    Path(f"{out}.{os.environ.get('RANK', '0')}").write_text(str(peak))
    parallel.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
