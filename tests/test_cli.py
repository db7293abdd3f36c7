"""The command line is frozen: a new command or option is a decision, made here and in the README."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import typer.main
from typer.testing import CliRunner

from internimage.cli import app, main
from internimage.cli.terminal import model_names
from internimage.cli.train import recipe_names
from internimage.errors import BackendUnavailable, MissingExtra, UnknownName

RUN_OPTIONS = {"--device", "--dtype", "--backend", "--json"}
COMMANDS: dict[str, tuple[list[str], set[str]]] = {
    "demo": ([], {"--out", "--device", "--backend", "--json"}),
    "env": ([], {"--json"}),
    "list": (["pattern"], {"--task", "--long", "--json"}),
    "info": (["model"], {"--json"}),
    "predict": (
        ["model", "images"],
        RUN_OPTIONS
        | {"--out", "--top-k", "--score-threshold", "--classes", "--masks", "--format", "--every", "--max-frames"}
        | {"--batch-size", "--draw", "--no-draw", "--draw-size", "--value-range"},
    ),
    "evaluate": (
        ["model", "data"],
        RUN_OPTIONS
        | {"--split", "--metric", "--pictures", "--multi-scale", "--merge", "--out", "--batch-size", "--workers"}
        | {"--confusion", "--value-range", "--processes"},
    ),
    "train": (
        ["recipe"],
        {"--data", "--out", "--resume", "--set", "--start", "--backbone-weights", "--device", "--json"}
        | {"--processes", "--list", "--show"},
    ),
    "plan": (
        ["recipe"],
        {"--devices", "--memory", "--set", "--batch", "--interconnect", "--images-per-second", "--measure", "--images"}
        | {"--classes", "--reserve", "--plot", "--json"},
    ),
    "recipe": (["name"], {"--set", "--json"}),
    "shard": (["data", "out"], {"--size", "--seed", "--max-unreadable", "--json"}),
    "export": (
        ["model", "file"],
        {"--dtype", "--operators", "--opset", "--batch", "--size", "--image-size", "--preprocess", "--layout"}
        | {
            "--postprocess",
            "--mask-size",
            "--calibration",
            "--images",
            "--max-difference",
            "--min-agreement",
            "--json",
        },
    ),
    "convert": (["source", "target"], {"--dtype", "--ema", "--raw"}),
    "bench": (["model"], RUN_OPTIONS | {"--batch-size", "--size", "--runs", "--fuse", "--compile", "--tune"}),
    "serve": (
        ["models"],
        {"--host", "--port", "--workers", "--batch-size", "--max-delay", "--max-body", "--max-pixels", "--max-images"}
        | {"--max-queue", "--max-requests", "--max-memory", "--timeout", "--body-timeout", "--api-keys"}
        | {"--allow-origin", "--page", "--no-page", "--device", "--dtype", "--backend"},
    ),
}
GLOBAL_OPTIONS = {"--verbose", "-v", "--version", "--install-completion", "--show-completion"}


def test_commands_and_options_are_frozen() -> None:
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        arguments = [param.name for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option"]
        found[name] = (arguments, {flag for option in options for flag in (*option.opts, *option.secondary_opts)})
    assert found == COMMANDS
    assert list(found) == list(COMMANDS)  # the order of --help
    assert {flag for param in group.params for flag in param.opts} == GLOBAL_OPTIONS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command: str) -> None:
    group = typer.main.get_command(app)
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    for flag in COMMANDS[command][1]:
        assert flag in result.stdout
    for param in group.commands[command].params:
        assert getattr(param, "help", None), f"{command} {param.name} has no help"
    assert group.commands[command].help


def test_wrong_usage_exits_with_2() -> None:
    for arguments in (
        [],
        ["predct"],
        ["env", "--nonsense"],
        ["predict"],
        ["train", "x"],
        ["bench", "x", "--runs", "0"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, arguments
        assert "Usage" in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (UnknownName("model", "x", ["y"]), 2),
        (ValueError("[broken] image"), 1),
        (OSError(28, "No space left on device"), 1),
        (FloatingPointError("the loss is not finite"), 1),
        (BackendUnavailable("no compiler"), 1),
        (MissingExtra("timm", "train", "training"), 1),
        (MemoryError(), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_a_user_can_mend_are_one_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("internimage.checkpoints.catalog.info", fail)
    result = CliRunner().invoke(app, ["info", "x"])
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert (str(error) or "MemoryError") in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_bugs_show_their_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("internimage.checkpoints.catalog.info", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        CliRunner().invoke(app, ["info", "x"], catch_exceptions=False)


def test_completion_knows_models_and_recipes() -> None:
    assert "internimage_t_1k_224" in model_names("internimage_t")
    assert model_names("internimage_x") == [name for name in model_names("") if name.startswith("internimage_x")]
    assert "internimage_pico_fashion" in recipe_names("internimage_p")


def test_python_m_and_the_script_are_the_same() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "internimage", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("internimage ") and result.stderr == ""
    assert callable(main)


def test_a_closed_pipe_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "internimage", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()
    process.wait()


def test_the_commands_import_no_torch_of_their_own() -> None:
    code = (
        "import sys, types, pathlib, importlib.util;"
        "root = pathlib.Path(importlib.util.find_spec('internimage').origin).parent;"
        "package = types.ModuleType('internimage'); package.__path__ = [str(root)];"
        "sys.modules['internimage'] = package;"
        "import internimage.cli;"
        "print(sorted({'torch', 'torchvision', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)))"
    )
    started = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
    assert time.perf_counter() - started < 5
