from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from internimage.backbones import variant
from internimage.checkpoints.catalog import BUNDLED
from internimage.checkpoints.save import save_model
from internimage.cli.bench import TOLERANCES
from internimage.cli.measuring.models import busy, model_to_measure, scene, usual_hw
from internimage.cli.measuring.timing import Timing, interleave
from internimage.detection import DINO, RCNN, DINOConfig, RCNNConfig
from internimage.detection.config import BoxStageConfig, MaskHeadConfig
from internimage.hub.convert import convert
from internimage.hub.create import create
from internimage.ops.runtime import library
from internimage.segmentation import SegFormerConfig

Run = Callable[..., Result]


def test_bench_of_a_size(run: Run) -> None:
    report = json.loads(run("bench", "internimage_pico", "--size", 40, "--batch-size", 2, "--runs", 3, "--json").stdout)
    assert 0 <= report["difference_from_reference"] <= 1e-4
    if library.missing_reason() is None:
        assert report["difference_from_reference"] > 0, "two backends differ by rounding; one alone does not"
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["images_per_second"] == pytest.approx(2e3 / report["p50_ms"], rel=0.01)
    assert (report["size"], report["batch_size"], report["runs"], report["dtype"]) == (40, 2, 3, "float32")
    assert report["threads"] == torch.get_num_threads()


def test_bench_of_a_file_takes_its_size(run: Run, pets: Path) -> None:
    text = run("bench", pets, "--runs", 1, "--dtype", "bfloat16").stdout
    assert "p50 ms" in text and "images per second" in text
    assert json.loads(run("bench", pets, "--runs", 1, "--json").stdout)["size"] == 32


def test_bench_of_packed_weights(run: Run, pets: Path) -> None:
    report = json.loads(run("bench", pets, "--runs", 1, "--fuse", "--json").stdout)
    assert report["fused"] and report["difference_from_reference"] <= 1e-4


def test_bench_takes_the_weights_at_hand(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path))
    name = "mask_rcnn_internimage_pico_closet"
    result = run("bench", name, "--runs", 1, "--json")
    by_name = json.loads(result.stdout)
    by_file = json.loads(run("bench", BUNDLED / f"{name}.safetensors", "--runs", 1, "--json").stdout)
    assert by_name["weights"] == "of this package" and by_file["weights"].endswith(f"{name}.safetensors")
    assert 3 <= by_name["objects_found"] == by_file["objects_found"] <= 40  # three garments; random weights find 100
    assert by_name["size"] == by_file["size"] == 288
    assert "random" not in result.stderr + result.stdout
    # The same for a file in the cache.
    (tmp_path / "internimage_t_1k_224.pth").symlink_to(convert("internimage_pico_fashion", tmp_path / "other.pth"))
    model, origin = model_to_measure("internimage_t_1k_224", "auto")
    assert origin == str(tmp_path / "internimage_t_1k_224.pth") and model.config.num_classes == 10


def test_bench_says_that_weights_are_random(run: Run) -> None:
    result = run("bench", "internimage_pico", "--size", 32, "--runs", 1)
    assert "weights random" in " ".join(result.stdout.split()) and "random weights" in result.stderr
    assert "objects found" not in result.stdout


@pytest.mark.parametrize("num_classes", [2, 80])
def test_detectors_with_random_weights_have_the_same_work_whatever_their_classes(num_classes: int) -> None:
    small = RCNNConfig(
        variant("internimage_pico"),
        num_classes=num_classes,
        channels=32,
        stages=(BoxStageConfig(num_fcs=1, fc_channels=32),),
        mask=MaskHeadConfig(num_convs=1, channels=16),
    )
    network = busy(RCNN(small))
    with torch.inference_mode():
        assert len(network(scene(network, 1, (128, 160))).scores) == small.max_per_image


def test_no_speed_without_right_answers(run: Run, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCES, "float32", -1.0)
    result = run("bench", pets, "--runs", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no speed was measured" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["internimage_tiny"], 2, "nearest names"),
        (["internimage_pico", "--size", "12y"], 2, "is no size"),
        (["openlanev2_internimage-s"], 1, "not built by this release"),
        (["internimage_pico", "--device", "gpu0"], 2, "no device"),
        (["internimage_pico", "--device", "cuda:99"], 1, "not here"),
        (["internimage_pico", "--backend", "magic"], 2, "no backend"),
        (["internimage_pico", "--dtype", "int8"], 2, "int8"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else None,
)
def test_wrong_requests(run: Run, arguments: list[str], exit_code: int, message: str) -> None:
    result = run("bench", *arguments)
    assert result.exit_code == exit_code
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", ["mask_rcnn", "dino", "segformer"])
def test_bench_of_larger_models(run: Run, name: str, animals: Path, tmp_path: Path) -> None:
    path = animals
    if name != "mask_rcnn":
        config = DINOConfig(variant("internimage_pico"), 3, channels=64, num_queries=9, feedforward_channels=64)
        head = SegFormerConfig(channels=8)
        model = DINO(config) if name == "dino" else create(name, backbone="internimage_pico", num_classes=3, head=head)
        path = save_model(model, tmp_path / "model.safetensors")
    report = json.loads(run("bench", path, "--size", "64x96", "--runs", 1, "--fuse", "--json").stdout)
    assert report["difference_from_reference"] <= 1e-4 and report["size"] == [64, 96] and report["p50_ms"] > 0


@pytest.mark.parametrize(
    ("config", "size_hw"), [("mask_rcnn", (800, 1344)), ("dino", (800, 1344)), ("segformer", (512, 512))]
)
def test_usual_sizes(config: str, size_hw: tuple[int, int]) -> None:
    head = SegFormerConfig(channels=8) if config == "segformer" else None
    with torch.device("meta"):
        model = create(config, backbone="internimage_pico", num_classes=3, head=head)
    assert usual_hw(model) == size_hw


def test_percentiles() -> None:
    assert Timing((1.0, 2.0, 3.0)).p99 == 3.0 and Timing((1.0, 2.0, 3.0, 4.0)).p50 == 2.5
    assert Timing((5.0,)).p99 == Timing((5.0,)).p50 == Timing((5.0,)).best == 5.0
    assert Timing(tuple(float(i) for i in range(1, 201))).p99 == 198.0


def test_functions_take_turns() -> None:
    calls: list[str] = []
    timings = interleave({name: partial(calls.append, name) for name in "ab"}, rounds=3, warm_up=1)
    assert calls == ["a", "b"] + ["a", "b"] * 3
    assert all(len(timing.samples) == 3 and timing.best <= timing.p50 for timing in timings.values())
