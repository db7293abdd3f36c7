"""Measure and record: `python -m benchmarks.run [--device cpu|cuda] [--only SUITE] [--seconds S]`."""

from __future__ import annotations

import argparse
import importlib

SUITES = ("operators", "blocks", "models", "detection", "segmentation", "memory")


def main() -> None:
    """Run the chosen suites."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=SUITES, action="append", help="a suite; repeat for several, omit for all")
    parser.add_argument("--seconds", type=float, help="time for each comparison; each suite has its own default")
    args = parser.parse_args()
    settings = {} if args.seconds is None else {"seconds": args.seconds}
    for suite in args.only or SUITES:
        importlib.import_module(f"benchmarks.{suite}").run(args.device, **settings)


if __name__ == "__main__":
    main()
