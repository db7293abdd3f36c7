"""What every benchmark writes: a table on the terminal, a JSON file with the circumstances, a plot."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchvision

from internimage.ops.runtime import library

RESULTS = Path(__file__).parent / "results"


def circumstances(device: str) -> dict[str, Any]:
    """Return device, versions and commit of this run."""
    commit, dirty = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "-uno")
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": library.missing_reason() or library.instruction_set(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "python": platform.python_version(),
        "commit": commit + ("+" if dirty else ""),
        "date": date.today().isoformat(),
    }


def _git(*words: str) -> str:
    """What git says of this working tree; nothing where there is no git, or a copy of the files alone."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the same keys as an aligned table."""
    if not rows:
        return
    keys = list(rows[0])
    cells = [[_text(row.get(key)) for key in keys] for row in rows]
    widths = [max(len(key), *(len(line[i]) for line in cells)) for i, key in enumerate(keys)]
    print(f"\n{title}")
    print("  ".join(key.ljust(width) for key, width in zip(keys, widths, strict=True)))
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)


def save(name: str, device: str, rows: Sequence[Mapping[str, Any]], **notes: Any) -> Path:
    """Write `results/<name>_<device>.json` through a temporary file and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{device}.json"
    temporary = path.with_suffix(".tmp")
    document = {"circumstances": circumstances(device), **notes, "rows": list(rows)}
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)
    print(f"wrote {path}")
    return path


def bar_plot(
    name: str, device: str, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str
) -> Path | None:
    """Draw grouped horizontal bars into `results/<name>_<device>.png`; nothing without labels."""
    if not labels:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height = 0.8 / len(series)
    figure, axis = plt.subplots(figsize=(9, 0.8 + 0.34 * len(labels) * max(1, len(series) * 0.6)))
    for i, (label, values) in enumerate(series.items()):
        places = [j + i * height for j in range(len(labels))]
        bars = axis.barh(places, values, height=height * 0.92, label=label)
        axis.bar_label(bars, [_text(float(value)) for value in values], padding=3, fontsize=8)
    axis.set_yticks([j + 0.4 - height / 2 for j in range(len(labels))], labels)
    axis.invert_yaxis()
    axis.set_xlabel(ylabel)
    axis.set_title(title)
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axis.legend(frameon=False)
    figure.tight_layout()
    path = RESULTS / f"{name}_{device}.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"wrote {path}")
    return path
