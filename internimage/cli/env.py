"""`internimage env`: versions, devices, and which operator runs where, with the reason where one does not."""

from __future__ import annotations

import platform
from typing import Any

from rich.text import Text

from internimage.cli.terminal import JsonOption, installed_version, print_fields, print_json, print_table, stdout

PACKAGES = ("torchvision", "numpy", "pillow", "safetensors", "huggingface_hub")
EXTRAS = {"train": ("timm", "tensorboard", "matplotlib")}


def env(as_json: JsonOption = False) -> None:
    """Show versions, devices, and which operators run here."""
    from internimage.ops import support_table

    facts = {"internimage": installed_version("internimage"), **_machine()}
    facts["packages"] |= {name: installed_version(name) for name in PACKAGES}
    facts["extras"] = {extra: {name: installed_version(name) for name in names} for extra, names in EXTRAS.items()}
    rows = support_table()
    if as_json:
        table = [{**row._asdict(), "dtype": str(row.dtype).removeprefix("torch.")} for row in rows]
        print_json({**facts, "operators": table})
        return
    fields = {key.replace("_", " "): value for key, value in facts.items() if not isinstance(value, dict | list)}
    fields["gpus"] = ", ".join(f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in facts["gpus"]) or "none"
    fused = facts["fused_linear_layers"].items()
    fields["linear layers after fuse()"] = "; ".join(f"{dtype}: {reason}" for dtype, reason in fused)
    fields |= {name: version or "not installed" for name, version in facts["packages"].items()}
    for extra, names in facts["extras"].items():
        found = ", ".join(f"{name} {version or 'not installed'}" for name, version in names.items())
        fields[f"extra {extra!r}"] = found
    print_fields(fields)
    stdout().print()
    _print_operators(rows)


def _print_operators(rows: list[Any]) -> None:
    """One line for each operator, backend and device; a column for each dtype; reasons once."""
    dtypes = list(dict.fromkeys(str(row.dtype).removeprefix("torch.") for row in rows))
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault((row.operator, row.backend, row.device), {"runs": {}, "reasons": {}})
        line["runs"][str(row.dtype).removeprefix("torch.")] = row.runs
        if row.reason:
            line["reasons"][row.reason] = None
    cells = []
    for key, line in lines.items():
        marks = [Text("yes", "green") if line["runs"].get(name) else Text("no", "dim") for name in dtypes]
        cells.append([*key, *marks, Text("; ".join(line["reasons"]), "dim")])
    print_table(["operator", "backend", "device", *dtypes, "why not"], cells)


def _machine() -> dict[str, Any]:
    """Facts about the machine and the build of torch."""
    import torch

    from internimage.ops.fused import support_reason
    from internimage.ops.runtime import library

    fused_dtypes = torch.float32, torch.bfloat16
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        memory_gib = round(properties.total_memory / 2**30, 1)
        gpus.append({"name": properties.name, "memory_gib": memory_gib, "compute_capability": capability})
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "compiled_kernels": library.missing_reason() or f"{library.path()} ({library.instruction_set()})",
        "fused_linear_layers": {
            str(dtype).removeprefix("torch."): support_reason("cpu", dtype) or "compiled" for dtype in fused_dtypes
        },
        "cuda_build": torch.version.cuda or "none",
        "gpus": gpus,
        "packages": {"torch": torch.__version__},  # with its build, which the metadata lack
    }
