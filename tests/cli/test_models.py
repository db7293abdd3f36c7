from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import Result

import internimage
from internimage.training import RECIPES
from internimage.training import recipe as find_recipe

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path / "home"))


def test_list_shows_every_checkpoint(run: Run) -> None:
    result = run("list")
    assert result.exit_code == 0
    for name in internimage.list_models():
        assert name in result.stdout
    assert "83.5" in result.stdout and "…" not in result.stdout


@pytest.mark.parametrize("width", [60, 80, 100, 240])
def test_list_fits_the_width_and_never_cuts_a_name(run: Run, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("internimage.cli.terminal.WIDTH_WITHOUT_TERMINAL", width)
    lines = run("list").stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= max(width, 70)  # the longest name, with what it reached
    first_words = {line.split()[0] for line in lines if line and not line.startswith(" ")}
    assert {name for name in internimage.list_models() if not name.startswith("hf:")} <= first_words
    assert ("GFLOPs" in " ".join(lines)) == (width > 80)


def test_list_folds_doubles_and_marks_what_can_be_trained_and_what_cannot_be_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internimage.cli.terminal.WIDTH_WITHOUT_TERMINAL", 80)
    text = run("list").stdout
    assert "hf:" not in text and "classification (18)" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["internimage_pico_fashion"] == ["93.6", "1.337M", "64", "yes", "yes"]  # here, and a recipe
    assert rows["internimage_t_1k_224"] == ["83.5", "29.92M", "224", "yes"]
    assert rows["flash_intern_image_t_1k_224"] == ["83.6", "29.82M", "224"]
    assert rows["dino_4scale_cbinternimage_g_objects365_coco"] == ["65.1", "none"]
    assert rows["mask_rcnn_flash_internimage_t_fpn_1x_coco"] == ["48.0", "yes"]  # its recipe has another name
    for name, row in rows.items():
        if (row and row[-1] == "yes") and internimage.list_models(name):
            assert find_recipe(name).name == internimage.info(name).recipe
    assert text.index("not loaded by this release") > text.index("mask2former_flash_internimage_l")
    assert "hf:internimage_t_1k_224" in run("list", "hf:*").stdout
    assert "hf:internimage_t_1k_224" in run("list", "internimage_t", "--long").stdout


@pytest.mark.parametrize("arguments", [["list"], ["list", "mask_rcnn", "--json"], ["--help"], ["info", "--help"]])
def test_reading_the_catalog_loads_no_torch(arguments: list[str]) -> None:
    code = "import sys\nfrom internimage.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.splitlines()[-1] == "False" and len(answer.splitlines()) > 5


def test_the_catalog_names_the_recipe_of_every_checkpoint_that_has_one() -> None:
    recipes = {name: internimage.info(name).recipe for name in internimage.list_models()}
    assert {recipe for recipe in recipes.values() if recipe} <= set(RECIPES)
    assert all(recipes[name] == name for name in recipes if name in RECIPES)
    assert recipes["mask_rcnn_flash_internimage_t_fpn_1x_coco"] == "mask_rcnn_flash_intern_image_t_fpn_1x_coco"
    assert recipes["dino_4scale_internimage_t_1x_coco"] == "dino_4scale_internimage_t_1x_coco_layer_wise_lr"
    for name in internimage.list_models():  # the configuration of the release has the name of the recipe
        config = internimage.info(name).config_path
        if recipes[name] and config and not name.startswith("hf:"):
            stem = config.rsplit("/", 1)[1].rsplit(".", 1)[0]
            assert stem.split("{")[0] in str(recipes[name])


def test_list_takes_patterns_parts_and_tasks(run: Run) -> None:
    names = [entry["name"] for entry in json.loads(run("list", "*_t_1k_*", "--json").stdout)]
    assert names == internimage.list_models("*_t_1k_*")
    part = [entry["name"] for entry in json.loads(run("list", "cascade", "--json").stdout)]
    assert part == internimage.list_models("*cascade*") and part
    tasks = {entry["task"] for entry in json.loads(run("list", "--task", "segmentation", "--json").stdout)}
    assert tasks == {"segmentation"}


def test_list_without_a_match_says_so(run: Run) -> None:
    result = run("list", "resnet50")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no checkpoint matches" in result.stderr
    assert run("list", "--task", "clasification").exit_code == 2


def test_info_of_a_classifier(run: Run) -> None:
    result = run("info", "internimage_b_1k_224.pth")
    assert result.exit_code == 0
    for fact in ("internimage_b_1k_224", "97,461,832", "top1 84.9", "MIT", "https://huggingface.co/"):
        assert fact in result.stdout
    row = json.loads(run("info", "internimage_b_1k_224", "--json").stdout)
    assert row["parameters"] == 97461832 and row["is_built"] and row["metrics"] == {"top1": 84.9}


def test_info_tells_settings_preprocessing_and_file(run: Run) -> None:
    text = " ".join(run("info", "internimage_b_1k_224").stdout.split())
    for fact in ("channels 112, 224, 448, 896", "depths 4, 4, 21, 4", "operator dcnv3", "post norm yes", "licence MIT"):
        assert fact in text
    assert "preprocessing interpolation bicubic, size 224, crop yes mean 0.485, 0.456, 0.406 std 0.229" in text
    row = json.loads(run("info", "upernet_internimage_pico_closet", "--json").stdout)
    [file] = row["files"]
    assert file["bytes"] == Path(file["path"]).stat().st_size
    assert file["sha256"] == hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest()
    assert row["preprocessing"]["scale"] == [384, 384] and row["settings"]["depths"] == [2, 2, 5, 1]


def test_info_of_a_file_and_of_a_folder(run: Run, pets: Path, animals: Path, tmp_path: Path) -> None:
    text = " ".join(run("info", pets).stdout.split())
    for fact in ("task classification", "class names cat, dog, owl", "size 32", "floating type float32", "sha256"):
        assert fact in text
    internimage.convert(pets, tmp_path / "folder")
    of_folder = json.loads(run("info", tmp_path / "folder", "--json").stdout)
    of_file = json.loads(run("info", pets, "--json").stdout)
    assert [Path(file["path"]).name for file in of_folder["files"]] == ["model.safetensors"]
    for key in ("task", "parameters", "class_names", "preprocessing", "backbone"):
        assert of_folder[key] == of_file[key]
    detector = json.loads(run("info", animals, "--json").stdout)
    assert (detector["task"], detector["model"]) == ("detection", "mask_rcnn")
    assert detector["preprocessing"]["shorter_side"] == 64
    internimage.save_model(internimage.create("internimage_pico"), tmp_path / "backbone.safetensors")
    backbone = json.loads(run("info", tmp_path / "backbone.safetensors", "--json").stdout)
    assert backbone["task"] == "backbone" and backbone["backbone"]["channels"] == [24, 48, 96, 192]


def test_info_shows_no_control_characters_and_builds_nothing_of_a_described_size(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    internimage.save_model(
        internimage.create("internimage_pico"), path, info={"by\x1b[31m": "\x1b]0;title\x07" + "x" * 100_000}
    )
    text = run("info", path).stdout
    assert "\x1b" not in text and "\x07" not in text and len(text) < 5000 and "note: by" in text
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in list(file.keys())[:4]}
        document = json.loads(file.metadata()["internimage"])
    document["config"]["depths"] = [60, 60, 60, 60]
    large = tmp_path / "large.safetensors"
    save_file(tensors, large, {"internimage": json.dumps(document)})
    result = run("info", large)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "large.safetensors" in "".join(result.stderr.split()) and "tensors" in result.stderr


def test_info_of_what_is_not_there_and_of_a_damaged_file(run: Run, tmp_path: Path) -> None:
    result = run("info", "nothere.pth")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no file or folder at nothere.pth" in result.stderr and "bevformer" not in result.stderr
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    result = run("info", tmp_path / "cut.safetensors")
    assert result.exit_code == 1 and "cut.safetensors" in " ".join(result.stderr.split())
    (tmp_path / "empty").mkdir()
    assert run("info", tmp_path / "empty").exit_code == 1


def test_info_of_a_model_of_a_later_release(run: Run) -> None:
    result = run("info", "openlanev2_internimage-s")
    assert "does not build this model yet" in result.stdout


def test_info_suggests_three_names(run: Run) -> None:
    result = run("info", "intrnimage_t_1k")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "internimage_t_1k_224" in result.stderr and result.stderr.count("_1k_") >= 3


def test_a_file_put_there_by_hand_is_seen(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("info", "internimage_t_1k_224", "--json").stdout)["local"] in ("download", "on this machine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "internimage_t_1k_224.pth").write_bytes(b"weights")
    assert json.loads(run("info", "internimage_t_1k_224", "--json").stdout)["local"] == "on this machine"
