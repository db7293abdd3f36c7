"""ONNX files of InternImage-T and of timm's ConvNeXt-T, by the same exporter, in turns in onnxruntime on one thread.

Run: `python -m benchmarks.export [--rounds 30]`; it needs the extras export and train.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import timm
import torch
from torch import nn

from benchmarks.record import print_table, save
from internimage import create, export
from internimage.cli.measuring.timing import interleave

SIZE = 224
MAX_RATIO = 1.3
FORMS = {"deform_conv": 20, "grid_sample": 18}


def stirred(model: nn.Module) -> nn.Module:
    """Away from its start, at which offsets are zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("offset.weight", "mask.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model.eval()


def write_convnext(path: Path) -> None:
    """Write ConvNeXt-T as timm and torch write it."""
    model, pixels = timm.create_model("convnext_tiny").eval(), torch.zeros(1, 3, SIZE, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (pixels,), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    program.save(path)


def session(path: Path) -> onnxruntime.InferenceSession:
    """A file in onnxruntime, on one thread."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def main() -> None:
    """Write, verify, measure in turns, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = stirred(create("classifier", backbone="internimage_t", num_classes=1000))
    pixels = torch.randn(1, 3, SIZE, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        files = {"convnext_tiny": Path(folder) / "convnext.onnx"}
        write_convnext(files["convnext_tiny"])
        differences: dict[str, float] = {}
        for operators, opset in FORMS.items():
            path = files[f"internimage_t {operators}"] = Path(folder) / f"{operators}.onnx"
            written = export(model, path, operators=operators, opset=opset, batch=1, size_hw=(SIZE, SIZE))  # type: ignore[arg-type]  # texts
            differences[f"internimage_t {operators}"] = written.checks[0].max_difference
        open_files = {name: session(path) for name, path in files.items()}
        calls = {
            name: lambda run=run: run.run(None, {run.get_inputs()[0].name: pixels.numpy()})
            for name, run in open_files.items()
        }
        with torch.inference_mode():
            model.fuse()
            calls["internimage_t torch, fused"] = lambda: model(pixels)
            timings = interleave(calls, rounds=rounds)
        rows = []
        for name, timing in timings.items():
            kinds = Counter(node.op_type for node in onnx.load(files[name]).graph.node) if name in files else Counter()
            rows.append(
                {
                    "model": name,
                    "best_ms": timing.best,
                    "p50_ms": timing.p50,
                    "over_convnext": timing.best / timings["convnext_tiny"].best,
                    "nodes": kinds.total() or None,
                    "transposes": kinds["Transpose"] if kinds else None,
                    "norms": kinds["LayerNormalization"] if kinds else None,
                    "difference_from_torch": differences.get(name),
                }
            )
    notes = {"onnxruntime": onnxruntime.__version__, "timm": timm.__version__, "rounds": rounds, "accepted": MAX_RATIO}
    print_table("one image of 224 pixels, float32, one thread", rows)
    save("export", "cpu", rows, **notes)


if __name__ == "__main__":
    main()
