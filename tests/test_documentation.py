"""Every page of the documentation is tried: its Python runs, its commands exist, its links lead somewhere.

Python blocks of a page run in order, in one folder with bundled images, a small closet data set and class folders, and
without a network. Commands of `internimage` are parsed by the command line itself; those that need nothing but what the
folder holds are run. A block that cannot run stands behind `<!-- not run: reason -->`; there are few of them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import typer.main
from accelerate.commands.config.config_args import load_config_from_file
from typer.testing import CliRunner

import internimage
from examples.closet import write_closet
from internimage.backbones import VARIANTS
from internimage.checkpoints.catalog import BUNDLED, find
from internimage.cli import app
from internimage.training import RECIPES
from internimage.training import recipe as find_recipe
from tests.threads import torch_threads

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("python", "bash", "json", "yaml", "bibtex", "")
FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]{8,}) -->\s*$")
MAX_NOT_RUN = 1
GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")

# Commands of other programs that the pages name.
OTHER_COMMANDS = (
    r"python3? -m venv \S+",
    r"(\.venv/bin/)?pip install .+",
    r"(INTERNIMAGE_INSTRUCTION_SET=\w+ )?(\.venv/bin/)?pytest( tests/\w+)?( -m \w+)?",
    r"(\.venv/bin/)?ruff (check|format) .+",
    r"(\.venv/bin/)?pyright .+",
    r"python -m benchmarks\.run"
    r"( --only (operators|blocks|models|detection|segmentation|memory|host))*( \[--device cuda\])?",
    r"benchmarks/gpu\.sh",
    r"git clone \S+.*",
    r"cd \S+",
)
# Commands that are run where everything they name is here: none of them trains or downloads.
RUN = {"list", "info", "env", "predict", "convert", "bench"}


@dataclass(frozen=True)
class Block:
    """One code block: its page, the line of its first line of code, its language, and why it is not run, or None."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Return the commands of a shell block as lists of words."""
        lines = [re.sub(r"(^|\s)#.*$", "", line) for line in self.code.replace("\\\n", " ").splitlines()]
        return [shlex.split(part) for line in lines for part in line.split("&&") if part.strip()]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        said = NOT_RUN.search(text[: match.start()])
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page, line, match["language"], match["code"], said["reason"] if said else None))
    return found


ALL = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: images of the demo, the closet, class folders, photos."""
    folder = tmp_path_factory.mktemp("things")
    images = BUNDLED / "pictures"
    (folder / "internimage_demo").mkdir()
    shutil.copy(images / "closet_scene.jpg", folder / "internimage_demo" / "scene.jpg")
    shutil.copy(images / "fashion_0018_bag.png", folder / "internimage_demo" / "garment.png")
    (folder / "photos").mkdir()
    shutil.copy(images / "closet_scene.jpg", folder / "photos" / "a.jpg")
    _write_fashion(folder / "fashion")
    write_closet(folder / "closet", fashion_mnist=folder / "fashion", train_scenes=6, val_scenes=2, size_hw=(96, 96))
    rng = np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (folder / "pets" / part / name).mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / "pets" / part / name / f"{i}.jpg")
    return folder


def _write_fashion(folder: Path) -> None:
    """Write the bundled garments in the form of Fashion-MNIST."""
    folder.mkdir()
    paths = sorted((BUNDLED / "pictures").glob("fashion_*.png"))
    images = np.stack([np.asarray(PIL.Image.open(path).convert("L")) for path in paths])
    labels = bytes(GARMENTS.index(path.stem.rsplit("_", 1)[1]) for path in paths)
    for part in ("train", "t10k"):
        head = struct.pack(">IIII", 0x803, *images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels)


@pytest.fixture
def here(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder as the working folder, an empty cache, no network, one thread."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the documentation uses the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path / "home"))
    shutil.copytree(things, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with torch_threads(1):
        yield tmp_path / "here"


def _with(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.language == language for block in blocks(page))]


@pytest.mark.parametrize("page", _with("python"), ids=lambda page: page.name)
def test_python_runs(page: Path, here: Path) -> None:
    names: dict[str, object] = {"__name__": "documentation"}
    for block in blocks(page):
        if block.language == "python" and block.not_run is None:
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)


@pytest.mark.parametrize("page", _with("bash"), ids=lambda page: page.name)
def test_commands_exist_and_run(page: Path, here: Path) -> None:
    ran: set[str] = set()
    for block in blocks(page):
        if block.language != "bash":
            continue
        for words in block.commands():
            if words[0].removeprefix(".venv/bin/") == "internimage":
                ran |= _try_command(words[1:], block)
            elif words[0] in ("torchrun", "accelerate"):  # which starts the same command in several processes
                ran |= _try_command(words[words.index("internimage") + 1 :], block)
            elif words[:2] == ["python", "examples/make_closet.py"]:
                _check_script(ROOT / words[1], words[2:], block.place)
            else:
                text = " ".join(words)
                assert any(re.fullmatch(form, text) for form in OTHER_COMMANDS), f"{block.place}: unknown {text!r}"
    assert page.name != "README.md" or page.parent != ROOT or ran == {*RUN, "train"}


def _try_command(words: list[str], block: Block) -> set[str]:
    """Let the command line read a command, check the names in it, and run it where that is cheap and offline.

    Returns the name of the command if it was run.
    """
    group = typer.main.get_command(app)
    words = words[: words.index(">")] if ">" in words else words  # what is printed goes to a file
    name, arguments = words[0], words[1:]
    assert name in group.commands, f"{block.place}: there is no command {name}"  # type: ignore[attr-defined]
    command = group.commands[name]  # type: ignore[attr-defined]
    values = command.make_context(name, list(arguments)).params  # refuses unknown options and wrong values
    model = values.get("model") or values.get("source")
    if name in ("train", "recipe", "plan"):
        _check_recipe({"recipe": values.get("name"), **values}, block.place)
    elif model is not None:
        known = find(model) is not None or model in VARIANTS or Path(model).suffix or Path(model).exists()
        assert known or model.isupper(), f"{block.place}: there is no checkpoint {model}"
    only_shows = name in (*RUN, "plan") or values.get("shows_list") or values.get("shows_settings")
    if only_shows and block.not_run is None and _is_here(name, values):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{block.place}: {words}: {result.stderr}"
        return {name}
    return set()


def _is_here(name: str, values: dict[str, object]) -> bool:
    """Whether a command names only weights of this package and images of the folder."""
    model = values.get("model") or values.get("source")
    if model is not None and name != "info":
        entry = find(str(model))
        if not Path(str(model)).exists() and (entry is None or entry.source != "bundled"):
            return False
    images = values.get("images") or []
    assert isinstance(images, list | tuple)
    return all(Path(image).exists() for image in images)


def _check_recipe(values: dict[str, Any], place: str) -> None:
    """A recipe or a checkpoint to start from, with settings that exist; --resume and --list need none."""
    name, settings = values.get("recipe"), values.get("settings") or []
    if name is None:
        assert values.get("resume") or values.get("shows_list"), f"{place}: name a recipe"
        return
    is_known = name in RECIPES or find(name) is not None or name.isupper() or Path(name).suffix in (".yaml", ".json")
    assert is_known, f"{place}: there is no recipe {name}"
    if name in RECIPES:
        find_recipe(name).with_overrides(settings)


def _check_script(script: Path, words: list[str], place: str) -> None:
    """The options that a command gives to a script of the repository are in it."""
    source = script.read_text(encoding="utf-8")
    for word in words:
        assert not word.startswith("--") or f'"{word}"' in source, f"{place}: {script.name} has no option {word}"


def test_files_in_yaml_are_read(tmp_path: Path) -> None:
    """Each is a recipe, or what accelerate launch reads."""
    yaml = [block for block in ALL if block.language == "yaml"]
    settings = [block for block in yaml if block.code.startswith("compute_environment:")]
    assert settings and len(yaml) > len(settings)
    for block in yaml:
        path = tmp_path / "mine.yaml"
        path.write_text(block.code, encoding="utf-8")
        if block in settings:
            assert vars(load_config_from_file(str(path)))["num_processes"] > 1, block.place  # refuses unknown keys
        else:
            assert find_recipe(str(path)).explicit, block.place


def test_few_blocks_are_left_out_and_none_is_hidden() -> None:
    python = [block for block in ALL if block.language == "python"]
    assert len(python) >= 15
    left_out = [block.place for block in ALL if block.not_run is not None]
    assert len(left_out) <= MAX_NOT_RUN, left_out
    for block in ALL:
        assert block.language in LANGUAGES, f"{block.place}: {block.language}"
        if not block.language:
            command = re.search(r"^(internimage|python3?|pip|\.venv/bin/\w+|>>>|import) ", block.code, re.MULTILINE)
            assert command is None, f"{block.place}: name the language of the block behind its fence"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: no {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: no heading for {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_the_readme_names_what_this_release_needs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    python = re.search(r'requires-python = ">=([\d.]+)"', project)
    least_torch = re.search(r'"torch>=([\d.]+)"', project)
    assert python and f"Python {python[1]} or later" in text
    assert least_torch and f"torch {least_torch[1]} or later" in text
    for name in re.findall(r"`((?:flash_intern|intern|mask_|cascade_|dino_|upernet_|mask2)[a-z0-9_]+)`", text):
        assert internimage.list_models(name) or name in RECIPES or name in ("internimage_demo",), name
