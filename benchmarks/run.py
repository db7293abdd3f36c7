"""Measure and record: `python -m benchmarks.run [--device cpu|cuda] [--only SUITE] [--seconds S] [--dtype DTYPE]`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import record

SUITES = (
    "operators",
    "rows",
    "blocks",
    "models",
    "detection",
    "segmentation",
    "memory",
    "loader",
    "first_calls",
    "host",
    "compiled",
    "serving",
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WITH_DTYPES = ("operators", "rows", "models")


def main() -> None:
    """Run the chosen suites."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=SUITES, action="append", help="a suite; repeat for several, omit for all")
    parser.add_argument("--seconds", type=float, help="time for each comparison; each suite has its own default")
    parser.add_argument("--dtype", choices=DTYPES, help=f"one type alone, for {' and '.join(WITH_DTYPES)}")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder of the figures")
    args = parser.parse_args()
    suites = args.only or SUITES
    if args.dtype is not None and not set(suites) <= set(WITH_DTYPES):
        parser.error(f"--dtype is for {' and '.join(WITH_DTYPES)}; name them with --only")
    record.RESULTS = args.results
    settings: dict[str, Any] = {} if args.seconds is None else {"seconds": args.seconds}
    if args.dtype is not None:
        settings["dtypes"] = (DTYPES[args.dtype],)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a suite that is stopped still saves its rows
    for suite in suites:
        importlib.import_module(f"benchmarks.{suite}").run(args.device, **settings)


if __name__ == "__main__":
    main()
