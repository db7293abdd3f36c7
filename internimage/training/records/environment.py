"""Where a run was trained, for whoever finds its folder: environment.json, and README.txt about all its files."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from internimage import parallel
from internimage.files import replacing
from internimage.version import __version__

ENVIRONMENT_FILE, README_FILE = "environment.json", "README.txt"
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "timm", "accelerate", "deepspeed")
README = """A training run of internimage (https://pypi.org/project/internimage).

recipe.json         every setting: `internimage train recipe.json --data DATA --out FOLDER` starts such a run anew
environment.json    each start of the run: time, command, versions, device, processes
log.txt             what the run said
metrics.csv         a row for each validation
curves.png          its columns over the steps; tensorboard/ has more of them
best.safetensors    the weights with the best validation: `internimage predict FOLDER IMAGES`
last.safetensors    the weights at the end
state.pt            all that `internimage train --resume --out FOLDER` needs to go on
states              the same of runs of several processes, or of `run.keep_states` states
data.json.gz        what the data set was made of
"""


def note_start(out: Path, device: torch.device, *, step: int) -> None:
    """Add a start of a run to its environment.json, and write what its files are.

    Args:
        out: folder of the run.
        device: where its first process computes.
        step: steps that are done.
    """
    path = out / ENVIRONMENT_FILE
    starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    with replacing(path) as temporary:
        temporary.write_text(json.dumps([*starts, _start(device, step)], indent=2) + "\n", encoding="utf-8")
    with replacing(out / README_FILE) as temporary:
        temporary.write_text(README, encoding="utf-8")


def _start(device: torch.device, step: int) -> dict[str, object]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "step": step,
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "commit": _commit(),
        "internimage": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processes": parallel.world(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the folder that the program was started in, None where git knows of none."""
    words = ("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
