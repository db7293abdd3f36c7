"""Random damage and malice in checkpoints: each file ends in a model or in one sentence that names it.

Every case follows from its seed, which a failure shows. The short run takes a few seconds, the long one minutes:
`pytest tests/fuzz/test_checkpoints.py -m slow`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pickle
import random
import shutil
import struct
import subprocess
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from internimage.backbones import variant
from internimage.checkpoints.save import save_model
from internimage.classification import Classifier, ClassifierConfig
from internimage.detection import DINOConfig, RCNNConfig
from internimage.detection.config import MaskHeadConfig
from internimage.hub.convert import convert
from internimage.hub.load import load
from internimage.segmentation import Mask2FormerConfig, SegFormerConfig, SegmentorConfig

SECONDS = 8.0
CHARACTERS = 1000
PICO = variant("internimage_pico")


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files of every container."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(PICO, 4, class_names=("a", "b", "c", "d")))
    path = save_model(model, folder / "good.safetensors")
    convert(path, folder / "good.pth")
    convert(path, folder / "good")
    content = torch.load(folder / "good.pth", weights_only=True)
    torch.save(content, folder / "plain.pth", _use_new_zipfile_serialization=False)
    return folder


def answered(path: Path, seed: int) -> None:
    """Load a file; it must become a model, or an error of ours that is short, plain and names the file, in time."""
    start = time.process_time()
    try:
        load(path)
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        assert path.name in text, f"seed {seed}: no name in {text[:300]!r}"
        assert len(text) < CHARACTERS, f"seed {seed}: {len(text)} characters: {text[:300]!r}"
        assert text.replace("\n", "").isprintable(), f"seed {seed}: control characters in {text[:300]!r}"
    assert time.process_time() - start < SECONDS, f"seed {seed}: took too long"


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite a part of a file, more often near its start, where its description lies."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 3, 20))):
        if not data:
            break
        place = min(int(len(data) * dice.random() ** dice.choice((1, 6))), len(data) - 1)
        kind = dice.randrange(5)
        if kind == 0:
            data[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[place : place + 8] = dice.randbytes(8)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + dice.randrange(1, 200)]
        else:
            data[place:place] = data[: dice.randrange(200)]
    return bytes(data)


def damaged_file(name: str) -> Callable[[Path, Path, random.Random], Path]:
    def make(sources: Path, folder: Path, dice: random.Random) -> Path:
        path = folder / f"odd{Path(name).suffix}"
        path.write_bytes(damaged((sources / name).read_bytes(), dice))
        return path

    return make


def damaged_pickle(sources: Path, folder: Path, dice: random.Random) -> Path:
    """Damage the description in an archive that is otherwise right."""
    path = folder / "odd.pth"
    with zipfile.ZipFile(sources / "good.pth") as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry.filename, damaged(content, dice) if entry.filename.endswith("data.pkl") else content)
    return path


def damaged_folder(sources: Path, folder: Path, dice: random.Random) -> Path:
    path = folder / "odd"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(sources / "good", path)
    victim = path / dice.choice(("config.json", "config.json", "preprocessor_config.json", "model.safetensors"))
    if victim.suffix == ".json" and dice.random() < 0.7:
        content = json.loads(victim.read_text())
        content[dice.choice(sorted(content))] = hostile(dice)
        victim.write_text(json.dumps(content))
    elif dice.random() < 0.1:
        victim.unlink()
    else:
        victim.write_bytes(damaged(victim.read_bytes(), dice))
    return path


def hostile(dice: random.Random) -> Any:
    """Return a value that no setting should have."""
    numbers = (0, -1, 10**4, 10**6, 2**40, -(2**63), 10**30, 10**400, 1e-300, math.nan, math.inf, -math.inf)
    others = (None, True, [], {}, [[]], "", "\x1b[31m" * 9000, "\u202e", [1] * 5000, {"a": 1}, [-1] * 4, [10**9] * 4)
    return dice.choice((*numbers, *others))


CONFIGS: tuple[tuple[str, Any], ...] = (
    ("backbone", PICO),
    ("classification", ClassifierConfig(PICO, 3)),
    ("rcnn_detection", RCNNConfig(PICO, 3, mask=MaskHeadConfig())),
    ("dino_detection", DINOConfig(PICO, 3)),
    ("segmentation", SegmentorConfig(PICO, 3)),
    ("segmentation", SegmentorConfig(PICO, 3, head=SegFormerConfig())),
    ("segmentation", SegmentorConfig(PICO, 3, head=Mask2FormerConfig())),
)


def hostile_description(_: Path, folder: Path, dice: random.Random) -> Path:
    """Change one or two fields of a description at any depth."""
    task, config = dice.choice(CONFIGS)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    for _ in range(dice.choice((1, 2))):
        owner: Any = plain
        while True:
            key = dice.choice(sorted(owner)) if isinstance(owner, dict) else dice.randrange(len(owner))
            if isinstance(owner[key], dict | list) and owner[key] and dice.random() < 0.8:
                owner = owner[key]
                continue
            owner[key] = hostile(dice)
            break
    text = json.dumps({"format_version": 1, "task": task, "config": plain, "info": {}})
    path = folder / "odd.safetensors"
    stem = "patch_embed.conv1.weight" if task == "backbone" else "backbone.patch_embed.conv1.weight"
    save_file({stem: torch.zeros(1)}, path, metadata={"internimage": text})
    return path


def hostile_settings(sources: Path, folder: Path, dice: random.Random) -> Path:
    """Change the settings, the preprocessing or the names beside the weights of an original file."""
    content = torch.load(sources / "good.pth", weights_only=True)
    content["config"]["MODEL"]["INTERN_IMAGE"][dice.choice(("CHANNELS", "DEPTHS", "GROUPS", "MLP_RATIO"))] = hostile(
        dice
    )
    if dice.random() < 0.5:
        content["preprocess"][dice.choice(("size", "mean", "std", "crop"))] = hostile(dice)
    if dice.random() < 0.3:
        content["class_names"] = hostile(dice)
    path = folder / "odd.pth"
    torch.save(content, path)
    return path


def gadget(_: Path, folder: Path, dice: random.Random) -> Path:
    """Hide a call that would leave a file behind."""
    mark = f"touch {folder / 'RAN'}"
    code = f"open({str(folder / 'RAN')!r}, 'w').close()"
    call = dice.choice(
        (
            Call(os.system, mark),
            Call(os.popen, mark),
            Call(exec, code),
            Call(eval, code),
            Call(subprocess.run, mark, -1, None),
            Call(subprocess.getoutput, mark),
            Call(open, str(folder / "RAN"), "w"),
            Call(pickle.loads, pickle.dumps(Call(os.system, mark))),
            Call(getattr, Path, "touch"),
            Call(map, os.system, [mark]),
            Call(Path.touch, folder / "RAN"),
            Call(torch.load, str(folder / "RAN")),
            Call(torch.save, {}, str(folder / "RAN")),
        )
    )
    wrap = dice.choice(
        (
            lambda c: c,
            lambda c: {"model": {"head.weight": torch.ones(2)}, "config": c},
            lambda c: {"model": OrderedDict(a=c)},
            lambda c: [(c, [c])],
            lambda c: {"state_dict": {"patch_embed.conv1.weight": c}},
            lambda c: Call(OrderedDict, [("a", c)]),
            lambda c: Call(torch._utils._rebuild_tensor_v2, c, 0, (1,), (1,), False, OrderedDict()),
        )
    )
    path = folder / "odd.pth"
    content, protocol = wrap(call), dice.choice((2, 2, 2, 3, 4, 5))
    if dice.random() < 0.2:
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=dice.random() < 0.7)
    return path


def random_pickle(_: Path, folder: Path, dice: random.Random) -> Path:
    """String random instructions together, most of them such as torch reads."""
    with io.BytesIO() as body:
        for _ in range(dice.choice((3, 30, 300, 3000))):
            body.write(dice.choice(INSTRUCTIONS)(dice))
        repeated = body.getvalue() * dice.choice((1, 1, 1, 50))
    path = folder / "odd.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + repeated + b".")
        for name in dice.choice(
            ((), ("archive/version",), ("archive/DATA.PKL",), ("archive/data/0", "archive/data/0x"))
        ):
            archive.writestr(name, "3\n")
    return path


def _text(dice: random.Random) -> bytes:
    words = ("model", "items", "get", "latin1", "idna", "punycode", "storage")
    word = dice.choice((*words, "\ud800", "\x1b[2J", "patch_embed.norm1.weight")) * dice.choice((1, 1, 1, 500))
    content = word.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(content)) + content


def _name(dice: random.Random) -> bytes:
    names = ("collections\nOrderedDict", "_codecs\nencode", "torch\nSize", "torch._utils\n_rebuild_tensor_v2")
    others = ("torch\nTensor", "builtins\nset", "yacs.config\nCfgNode", "torch\nFloatStorage")
    return b"c" + dice.choice((*names, *others)).encode() + b"\n"


INSTRUCTIONS: tuple[Callable[[random.Random], bytes], ...] = (
    _text,
    _text,
    _name,
    lambda dice: dice.choice((b"N", b"}", b"]", b")", b"(", b"\x85", b"\x86", b"\x87", b"t", b"R", b"\x81", b"b")),
    lambda dice: dice.choice((b"a", b"e", b"s", b"u", b"Q", b"q\x01", b"h\x01", b"q\x02", b"h\x02", b"\x85" * 300)),
    lambda dice: b"\x8a\x08" + dice.randbytes(8),
    lambda dice: b"G" + dice.randbytes(8),
)

KINDS: dict[str, Callable[[Path, Path, random.Random], Path]] = {
    "archive": damaged_file("good.pth"),
    "plain": damaged_file("plain.pth"),
    "safetensors": damaged_file("good.safetensors"),
    "pickle": damaged_pickle,
    "folder": damaged_folder,
    "description": hostile_description,
    "settings": hostile_settings,
    "gadget": gadget,
    "instructions": random_pickle,
}


def run(kind: str, sources: Path, folder: Path, seeds: range) -> None:
    for seed in seeds:
        answered(KINDS[kind](sources, folder, random.Random(f"{kind} {seed}")), seed)
        assert not (folder / "RAN").exists(), f"seed {seed}: a call in the file was made"


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_of_each_kind(kind: str, sources: Path, tmp_path: Path) -> None:
    run(kind, sources, tmp_path, range(10))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_of_each_kind(kind: str, sources: Path, tmp_path: Path) -> None:
    run(kind, sources, tmp_path, range(10, 400))
