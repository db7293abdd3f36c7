#!/usr/bin/env python3
"""Compute with this package what the original implementation gave for a recorded case.

    run_case.py CASE_DIR OUT.npz

Reads `manifest.json` of the case (how the original model was built, filled and fed), does the same through the public
path of the package and writes full arrays under the names of the recorded ones; `compare.py` then judges. The kind of a
case is the beginning of its folder's name. Exit status 2: this release does not know the kind.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from runners import classifiers, detectors, operators, segmentors

Run = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]
KINDS: dict[str, Run] = {
    "dcnv3_op": operators.run_dcnv3,
    "dcnv4_op": operators.run_dcnv4,
    "msda_op": operators.run_attention,
    "small_": classifiers.run,
    "cls_": classifiers.run,
    "flash_": classifiers.run,
    "mask_rcnn_": detectors.run,
    "faster_rcnn_": detectors.run,
    "cascade_": detectors.run,
    "dino_": detectors.run,
    "cbdino_": detectors.run,
    "preprocess_detection": detectors.run_preprocess,
    "upernet_": segmentors.run,
    "segformer_": segmentors.run,
    "mask2former_": segmentors.run,
    "preprocess_segmentation": segmentors.run_preprocess,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="folder with manifest.json")
    parser.add_argument("out", type=Path, help=".npz file to write")
    args = parser.parse_args()
    name = args.case.resolve().name
    run = next((run for prefix, run in KINDS.items() if name.startswith(prefix)), None)
    if run is None:
        print(f"{name}: this release runs cases of the kinds {', '.join(KINDS)}", file=sys.stderr)
        return 2
    manifest = json.loads((args.case / "manifest.json").read_text(encoding="utf-8"))
    arrays = run({**manifest, "folder": str(args.case.resolve())})  # for what a case stores as an input
    with args.out.open("wb") as file:
        np.savez(file, **arrays)
    print(f"{name}: {len(arrays)} arrays written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
