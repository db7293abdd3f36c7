from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import typer
from typer.testing import Result

import internimage
from tests.training.runs import stop_after

Run = Callable[..., Result]
QUICK = [
    *("data.size=32", "data.batch_size=8", "data.holdout=0", "schedule.epochs=2", "schedule.warmup_epochs=0"),
    *("run.tensorboard=false", "run.plot=false", "run.precision=fp32"),
]
SETTINGS = [part for text in QUICK for part in ("--set", text)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                PIL.Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_train_then_predict(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("train", "internimage_pico_fashion", "--data", data, "--out", out, *SETTINGS, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert len(summary["history"]) == 2 and not summary["interrupted"]
    assert internimage.load(summary["best"]).config.class_names == ("cat", "dog")
    assert run("predict", summary["last"], data / "val", "--json").exit_code == 0

    again = run("train", "internimage_pico_fashion", "--data", data, "--out", out, *SETTINGS)
    assert again.exit_code == 1 and "resume" in again.stderr
    resumed = run("train", "internimage_pico_fashion", "--data", data, "--out", out, *SETTINGS, "--resume")
    assert resumed.exit_code == 0 and "best.safetensors" in resumed.stdout
    assert f"internimage predict {out} IMAGES" in resumed.stdout
    assert f"internimage train --resume --out {out} --set schedule.epochs=N" in resumed.stdout
    # the run knows its recipe, settings and data; it may become longer
    longer = run("train", "--resume", "--out", out, "--set", "epochs=3", "--json")
    assert longer.exit_code == 0, longer.stderr
    assert len(json.loads(longer.stdout)["history"]) == 3 and "schedule.epochs=3, so far 2" in longer.stderr
    # a folder of a run stands for its weights
    assert run("predict", out, data / "val", "--json").exit_code == 0
    assert "top-1" in run("evaluate", out, data).stdout
    converted = run("convert", out, tmp_path / "pets.pth")
    assert converted.exit_code == 0 and internimage.load(tmp_path / "pets.pth").config.class_names == (
        "cat",
        "dog",
    )


def test_a_log_file_shows_how_far_the_run_is(run: Run, data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, "--out", tmp_path / "run", *SETTINGS, "--set", "run.save_minutes=0")
    lines = run("train", "internimage_pico_fashion", *arguments).stderr.splitlines()
    assert sum("saved at step 1 of 4, loss " in line for line in lines) == 1
    assert sum("epoch 2: " in line and "val_top1" in line for line in lines) == 1


def test_backbone_weights_replace_the_start_of_a_recipe(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from internimage.training import TrainingResult

    given = []
    monkeypatch.setattr(
        "internimage.training.train",
        lambda recipe, **_: given.append(recipe.model) or TrainingResult(None, None, [], False, "val_box_ap"),
    )
    arguments = ("--data", data, "--out", tmp_path / "run", "--backbone-weights", "own.safetensors")
    result = run("train", "dino_4scale_cbinternimage_h_objects365_coco_ss", *arguments, "--set", "num_classes=3")
    assert result.exit_code == 0, result.stderr
    assert (given[0].backbone_weights, given[0].weights, given[0].num_classes) == ("own.safetensors", None, 3)
    wrong = run("train", "internimage_pico_fashion", *arguments)
    assert wrong.exit_code == 2 and "model.weights=own.safetensors" in " ".join(wrong.stderr.split())


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, exit_code: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda trainer: os.kill(os.getpid(), number))
        result = run("train", "internimage_pico_fashion", "--data", data, "--out", out, *SETTINGS)
    assert result.exit_code == exit_code, result.stderr
    assert f"go on with: internimage train --resume --out {out}" in result.stderr
    rest = run("train", "--resume", "--out", out, "--json")
    assert rest.exit_code == 0 and len(json.loads(rest.stdout)["history"]) == 2


def test_what_could_not_be_measured_is_null(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from internimage.training import TrainingResult

    rows = [{"val_box_ap": value} for value in (math.nan, 0.25, math.nan)]
    for history, best in ((rows, 0.25), (rows[:1], None)):
        result = TrainingResult(None, None, history, False, "val_box_ap")
        monkeypatch.setattr("internimage.training.train", lambda *_, result=result, **__: result)
        arguments = ("train", "internimage_pico_fashion", "--data", data, "--out", tmp_path / "run")
        summary = json.loads(run(*arguments, "--json").stdout, parse_constant=lambda name: pytest.fail(name))
        assert summary["best_value"] == best and summary["history"][0] == {"val_box_ap": None}
        shown = run(*arguments).stdout
        assert ("25.00%" if best else "not measured") in shown and "nan" not in shown


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["internimage_pico_fashon"], 2, "internimage_pico_fashion"),
        (["internimage_pico_fashion", "--set", "schedule.epoch=3"], 2, "schedule.epochs"),
        (["internimage_pico_fashion", "--set", "schedule.epochs"], 2, "section.key=value"),
        (["internimage_pico_fashion", "--set", "schedule.epochs=many"], 2, "schedule.epochs"),
        (["internimage_pico_fashion", "--device", "gpu0"], 2, "no device"),
        (["internimage_pico_fashion", "--data", "nowhere"], 2, "there is no folder"),
        (["internimage_pico_fashion", "--resume"], 1, "nothing to resume"),
        ([], 2, "a new run needs the name of a recipe"),
        (["--resume", "--backbone-weights", "own.safetensors"], 2, "has its weights"),
    ],
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, list) else None,
)
def test_wrong_requests(
    run: Run, data: Path, tmp_path: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    given = [*arguments, "--out", str(tmp_path / "run")]
    if "--data" not in arguments:
        given += ["--data", str(data)]
    result = run("train", *given)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


QUIET = ["--set", "run.tensorboard=false", "--set", "run.plot=false"]


def test_own_classes_train_as_typed(run: Run, data: Path, tmp_path: Path) -> None:
    """Sixteen images, a recipe that was made for 60,000: the published weights, own validation part, small batches."""
    out = tmp_path / "run"
    given = ("--data", data, "--out", out, "--set", "schedule.epochs=1", *QUIET)
    result = run("train", "internimage_pico_fashion", *given)
    assert result.exit_code == 0, result.stderr
    settings = json.loads((out / "recipe.json").read_text())
    assert settings["model"]["weights"] == "internimage_pico_fashion"
    assert (settings["data"]["holdout"], settings["data"]["batch_size"]) == (0, 4)
    assert settings["run"]["precision"] in ("bf16", "fp32") and settings["schedule"]["warmup_epochs"] == 0
    assert "fine-tunes the published model internimage_pico_fashion" in result.stderr
    assert "starts from: internimage_pico_fashion (whole model); 2 classes: cat, dog" in result.stderr
    assert "4 images a batch instead of 128" in result.stderr and "data.holdout" in result.stderr
    again = run("train", "--resume", "--out", out)  # with everything as it was suited
    assert again.exit_code == 0, again.stderr
    assert json.loads((out / "recipe.json").read_text()) == settings


def test_class_folders_alone_are_divided(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = ("--data", data / "train", "--out", out, "--start", "recipe", *SETTINGS[:4], *QUIET)
    result = run("train", "internimage_pico_fashion", *given, "--set", "schedule.epochs=1")
    assert result.exit_code == 0, result.stderr
    settings = json.loads((out / "recipe.json").read_text())
    assert settings["data"]["holdout"] == 3 and settings["model"]["weights"] is None
    assert "validates on 3 of the 16 training images" in result.stderr
    assert "starts from: random weights" in result.stderr


def test_recipes_are_listed(run: Run) -> None:
    table = run("train", "--list")
    assert table.exit_code == 0
    rows = {line.split()[0]: line for line in table.stdout.splitlines() if line}
    assert "internimage_t_1k_224" in rows["upernet_internimage_t_512_160k_ade20k"]
    assert "miou 47.9" in rows["upernet_internimage_t_512_160k_ade20k"]
    listed = json.loads(run("train", "--list", "--json").stdout)
    assert len(listed) == 87 and {"name", "task", "start", "length", "published", "checkpoint"} == listed[0].keys()


def test_settings_are_shown(run: Run) -> None:
    shown = run("train", "internimage_pico_fashion", "--show", "--set", "epochs=3")
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("schedule.epochs")]
    assert line.rstrip().split(maxsplit=2)[1:] == ["3", "passes over the training set."]
    described = json.loads(run("train", "mask_rcnn_internimage_t_fpn_1x_coco", "--show", "--json").stdout)
    assert described["settings"]["schedule.steps"]["value"] == [8, 11]
    assert all(entry["meaning"] for entry in described["settings"].values())
    assert run("train", "--show").exit_code == 2
    wrong = run("train", "internimage_pico_fashion", "--show", "--set", "epoch=3")
    assert wrong.exit_code == 2 and "schedule.epochs" in " ".join(wrong.stderr.split())


def test_a_checkpoint_without_a_recipe_says_how_to_train_on(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("train", "flash_intern_image_t_1k_224", "--data", data, "--out", tmp_path / "run")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert "internimage train internimage_t_1k_224 --set model.backbone=flash_internimage_t" in said


def test_what_stands_for_a_folder_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from internimage.cli.data_folder import data_folder
    from internimage.data import open_detection_dataset, open_segmentation_dataset

    for name in ("fruit/data.yaml", "fruit/annotations/train.json", "fruit/train/_annotations.coco.json"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert data_folder(file, "--data") == tmp_path / "fruit"
        assert f"the data set in {tmp_path / 'fruit'}, which {file.name} belongs to" in capsys.readouterr().err
    assert data_folder(tmp_path, "--data") == tmp_path
    (tmp_path / "fruit.zip").touch()  # classifiers read it; the others say that it must be unpacked
    assert data_folder(tmp_path / "fruit.zip", "--data") == tmp_path / "fruit.zip"
    for opened in (open_detection_dataset, open_segmentation_dataset):
        with pytest.raises(FileNotFoundError, match="archives unpacked"):
            opened(tmp_path / "fruit.zip", split="train")
    for name, message in (("fruit.7z", "unpack it"), ("fruit.tar.gz", "unpack it"), ("a.json", "give the folder")):
        (tmp_path / name).touch()
        with pytest.raises(typer.BadParameter, match=message):
            data_folder(tmp_path / name, "--data")
