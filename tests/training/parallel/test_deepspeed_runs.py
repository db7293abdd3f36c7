"""Whole runs under ZeRO of DeepSpeed: cuts, other strategies and numbers of processes, half precisions, accelerate."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from pathlib import Path

import pytest
import torch

from internimage.training.state import load_state
from tests.training.parallel.processes import finished, start, start_training, wait_until
from tests.training.parallel.test_runs import rows, words
from tests.training.runs import assert_same_state

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]
ADAMW = ("optimizer.name=adamw", "optimizer.accumulation_steps=2", "schedule.epochs=4", "data.batch_size=2")


def cut(data: Path, out: Path, *overrides: str) -> int:
    """Start a run, end it by a signal after its first validation, and return the step at which it stands."""
    process = start_training(out, *words(data, *ADAMW, *overrides))
    wait_until((out / "metrics.csv").exists, process)
    process.send_signal(signal.SIGTERM)
    finished(process, 128 + signal.SIGTERM)
    return load_state(out)["step"]


@pytest.fixture(scope="module")
def whole(tiny_fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("zero") / "whole"
    finished(start_training(out, *words(tiny_fashion, *ADAMW, "parallel.strategy=zero1")))
    return out


def test_the_same_number_of_processes_goes_on_bit_for_bit(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    total = load_state(whole)["step"]
    assert 0 < cut(tiny_fashion, tmp_path, "parallel.strategy=zero1") < total
    finished(start_training(tmp_path, "--resume"))
    assert_same_state(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["false", "true"])
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_stages_go_on_bit_for_bit(tiny_fashion: Path, tmp_path: Path, strategy: str, offload: str) -> None:
    settings = (f"parallel.strategy={strategy}", f"parallel.offload={offload}")
    finished(start_training(tmp_path / "whole", *words(tiny_fashion, *ADAMW, *settings)))
    cut(tiny_fashion, tmp_path / "cut", *settings)
    finished(start_training(tmp_path / "cut", "--resume"))
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "ddp", "fsdp"])
def test_another_strategy_takes_and_gives_back_the_same_state(whole: Path, tmp_path: Path, strategy: str) -> None:
    """A run that is at its end writes what it has read: weights, average, moments."""
    state = load_state(shutil.copytree(whole, tmp_path / "run"))["optimizer"]["state"]
    assert len(state) > 200 and all(entry["exp_avg"].shape == entry["exp_avg_sq"].shape for entry in state.values())
    finished(start_training(tmp_path / "run", "--resume", f"--set=parallel.strategy={strategy}"))
    assert_same_state(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "processes"),
    [("zero3", "ddp", 2), ("ddp", "zero3", 2), ("zero2", "fsdp", 2), ("zero3", "ddp", 1)],
)
def test_another_strategy_goes_on(tiny_fashion: Path, tmp_path: Path, first: str, second: str, processes: int) -> None:
    sgd = ("optimizer.name=sgd",)
    cut(tiny_fashion, tmp_path / "run", *sgd, f"parallel.strategy={first}")
    finished(start_training(tmp_path / "run", "--resume", f"--set=parallel.strategy={second}", processes=processes))
    finished(start_training(tmp_path / "one", *words(tiny_fashion, *ADAMW, *sgd, "data.batch_size=4"), processes=1))
    state, expected = load_state(tmp_path / "run"), load_state(tmp_path / "one")
    torch.testing.assert_close(state["model"], expected["model"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state["ema"], expected["ema"], rtol=1e-5, atol=1e-5)
    for row, other in zip(rows(tmp_path / "run"), rows(tmp_path / "one"), strict=True):
        assert (row["step"], row["lr"], row["val_top1"]) == (other["step"], other["lr"], other["val_top1"])
        assert float(row["val_loss"]) == pytest.approx(float(other["val_loss"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(tiny_fashion: Path, tmp_path: Path, precision: str) -> None:
    """The loss is scaled as it is in one process: the same scale at the end, and nearly the same weights."""
    settings = (f"run.precision={precision}", "optimizer.name=sgd")
    for out, processes in ((tmp_path / "many", 2), (tmp_path / "one", 1)):
        own = (
            ("parallel.strategy=zero2", f"data.batch_size={4 // processes}")
            if processes > 1
            else ("data.batch_size=4",)
        )
        finished(start_training(out, *words(tiny_fashion, *ADAMW, *settings, *own), processes=processes))
    many, one = load_state(tmp_path / "many"), load_state(tmp_path / "one")
    assert many["scaler"] == one["scaler"] and (precision == "bf16" or many["scaler"]["scale"] > 1)
    differences = [float((many["model"][name] - value).abs().double().mean()) for name, value in one["model"].items()]
    assert max(differences) < 2e-2 and many["model"]["backbone.patch_embed.conv1.weight"].dtype == torch.float32


@pytest.mark.slow
def test_accelerate_launch_starts_it(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    (tmp_path / "zero.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\nnum_machines: 1\nnum_processes: 2\n"
        "mixed_precision: 'no'\nuse_cpu: false\nmain_process_port: 0\ndeepspeed_config:\n  zero_stage: 1\n"
        "  gradient_accumulation_steps: 2\n  offload_optimizer_device: none\n  offload_param_device: none\n"
    )
    launcher = ("-m", "accelerate.commands.launch", "--config_file", tmp_path / "zero.yaml", "-m", "internimage")
    given = (*words(tiny_fashion, *ADAMW), "--out", tmp_path / "run", "--device", "cpu")
    finished(start(*launcher, "train", *given))
    assert_same_state(whole, tmp_path / "run")
    text = finished(start(*launcher, "train", *given, "--set=optimizer.accumulation_steps=4"), None)
    assert "asks for gradient_accumulation_steps=2, but the recipe has optimizer.accumulation_steps=4" in text
