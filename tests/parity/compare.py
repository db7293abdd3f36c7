#!/usr/bin/env python3
"""Compare what the project computed for a parity case with the recorded numbers.

    compare.py CASE_DIR PRODUCED.npz [--rtol 1e-4] [--names REGEX] [--quiet]

PRODUCED.npz holds full arrays under the base names of CASE_DIR/outputs.npz.  An entry recorded as a summary
(NAME.shape, NAME.mean_std, NAME.index, NAME.value) is compared at the recorded flat indices of PRODUCED[NAME];
packed bits (NAME.bits, NAME.shape) are compared with PRODUCED[NAME] as booleans.

Tolerances: floating arrays must satisfy max|a-b| <= rtol * max(1, max|b|); integer arrays and labels must be equal;
label maps and masks may differ in at most 0.1 % of their elements.  Proposals (R, 5) are matched as a set (0.05 px,
99.5 % of them).  Detections (det_boxes, det_scores, det_labels, det_masks) are matched as a set: every recorded
detection needs a produced one of the same label, IoU > 0.99 or corners within 0.1 px, and a score within 10 rtol (and
nothing may be left over).

Exit status 0: everything recorded was produced and agrees.  1: something differs or is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np

PARTS = ("shape", "mean_std", "index", "value", "bits")
DETECTION = ("det_boxes", "det_scores", "det_labels", "det_masks", "det_mask_area")


def bases(recorded: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Group the recorded entries: base name -> {part or '': array}."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in recorded.items():
        head, _, tail = name.rpartition(".")
        if head and tail in PARTS and (f"{head}.shape" in recorded):
            groups.setdefault(head, {})[tail] = array
        else:
            groups.setdefault(name, {})[""] = array
    return groups


def unpack(parts: dict[str, np.ndarray]) -> np.ndarray:
    shape = tuple(int(n) for n in parts["shape"])
    return np.unpackbits(parts["bits"])[: int(np.prod(shape))].reshape(shape).astype(bool)


def check_float(a: np.ndarray, b: np.ndarray, rtol: float) -> tuple[bool, str]:
    if a.shape != b.shape:
        return False, f"shape {a.shape}, recorded {b.shape}"
    if b.size == 0:
        return True, "empty"
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False, "infinities or NaNs in other places"
    if not finite.any():
        return True, "no finite value"
    worst = float(np.max(np.abs(a[finite] - b[finite])))
    scale = max(1.0, float(np.max(np.abs(b[finite]))))
    return bool(worst <= rtol * scale), f"max diff {worst:.2e} at scale {scale:.2e}"


def check_proposals(a: np.ndarray, b: np.ndarray, rtol: float) -> tuple[bool, str]:
    if a.ndim != 2 or a.shape[1] != 5 or abs(len(a) - len(b)) > 0.005 * len(b):
        return False, f"shape {a.shape}, recorded {b.shape}"
    near = np.abs(a[None, :, :4] - b[:, None, :4]).max(-1) <= 0.05
    near &= np.abs(a[None, :, 4] - b[:, None, 4]) <= 10 * rtol
    share = float(near.any(1).mean()) if len(b) else 1.0
    return share >= 0.995, f"{share:.2%} of {len(b)} proposals matched"


def check_detections(prefix: str, recorded: dict, produced: dict, rtol: float) -> tuple[bool, str]:
    rb, rs, rl = (recorded[prefix + n][""] for n in DETECTION[:3])
    try:
        pb, ps, pl = (np.asarray(produced[prefix + n]) for n in DETECTION[:3])
    except KeyError as missing:
        return False, f"not produced: {missing}"
    if len(pb) != len(rb):
        return False, f"{len(pb)} detections, recorded {len(rb)}"
    free = np.ones(len(pb), dtype=bool)
    for box, score, label in zip(rb, rs, rl, strict=True):
        x1, y1 = np.maximum(pb[:, :2], box[:2]).T
        x2, y2 = np.minimum(pb[:, 2:4], box[2:4]).T
        inter = np.clip(x2 - x1, 0, None) * np.clip(y2 - y1, 0, None)
        area = lambda q: (q[..., 2] - q[..., 0]) * (q[..., 3] - q[..., 1])  # noqa: E731
        iou = inter / np.maximum(area(pb) + area(box) - inter, 1e-9)
        close = (iou > 0.99) | (np.abs(pb[:, :4] - box[:4]).max(1) <= 0.1)
        ok = free & (pl == label) & (np.abs(ps - score) <= max(rtol, 1e-6) * 10) & close
        if not ok.any():
            return False, f"no match for label {label} score {score:.4f} box {np.round(box, 2)}"
        free[np.flatnonzero(ok)[np.argmin(np.abs(pb[ok, :4] - box[:4]).max(1))]] = False
    return True, f"{len(rb)} detections matched"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("produced", type=Path)
    parser.add_argument("--rtol", type=float, default=1e-4)
    parser.add_argument("--names", default=".", help="only the recorded names that match this regex")
    parser.add_argument(
        "--optional",
        default=r"^rcnn\.stage|^match\.|^rpn_pos_neg|^attn_rows|\.acc$|^rand\.|^gt_|^rois$|^input_f32_rows",
        help="recorded names that need not be produced (inputs and book-keeping)",
    )
    parser.add_argument("--quiet", action="store_true", help="print only what falls short and the last line")
    args = parser.parse_args()

    recorded = bases(dict(np.load(args.case / "outputs.npz")))
    produced = dict(np.load(args.produced))
    good = bad = missing = 0
    for name, parts in sorted(recorded.items()):
        if not re.search(args.names, name):
            continue
        leaf = name.split(".")[-1]
        prefix = name[: len(name) - len(leaf)]
        if leaf in DETECTION:
            if leaf != "det_boxes":
                if leaf == "det_masks" and name in produced:
                    want = unpack(parts) if "bits" in parts else parts[""].astype(bool)
                    got = np.asarray(produced[name]).astype(bool)
                    if got.shape == want.shape and len(want):
                        # sets are matched by box above; here the total mask area has to agree
                        off = abs(int(got.sum()) - int(want.sum())) / max(1, int(want.sum()))
                        ok, text = off <= 2e-3, f"mask area off by {off:.2e}"
                    else:
                        ok, text = got.shape == want.shape, f"shape {got.shape}, recorded {want.shape}"
                    good, bad = good + ok, bad + (not ok)
                    if not ok or not args.quiet:
                        print(f"{'ok ' if ok else 'BAD'} {name}: {text}")
                continue
            ok, text = check_detections(prefix, recorded, produced, args.rtol)
        elif name not in produced:
            if not re.search(args.optional, name):
                missing += 1
                print(f"MISSING {name}")
            continue
        elif leaf == "proposals" and parts.get("", np.empty(0)).shape[-1] == 5:
            ok, text = check_proposals(np.asarray(produced[name]), parts[""], args.rtol)
        else:
            got = np.asarray(produced[name])
            if "bits" in parts:
                want = unpack(parts)
                off = float(np.mean(got.astype(bool) != want)) if got.shape == want.shape else 1.0
                ok, text = off <= 1e-3, f"{off:.2e} of the bits differ"
            elif "index" in parts:
                shape = tuple(int(n) for n in parts["shape"])
                if got.shape != shape:
                    ok, text = False, f"shape {got.shape}, recorded {shape}"
                else:
                    ok, text = check_float(got.reshape(-1)[parts["index"]], parts["value"], args.rtol)
            else:
                want = parts[""]
                if want.dtype.kind in "iub":
                    off = float(np.mean(got != want)) if got.shape == want.shape else 1.0
                    ok = off == 0 or ("label_map" in name and off <= 1e-3)
                    text = f"{off:.2e} of {want.size} elements differ"
                else:
                    ok, text = check_float(got, want, args.rtol)
        good, bad = good + ok, bad + (not ok)
        if not ok or not args.quiet:
            print(f"{'ok ' if ok else 'BAD'} {name}: {text}")
    print(f"{args.case.name}: {good} agree, {bad} differ, {missing} missing")
    return 0 if good and not bad and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
