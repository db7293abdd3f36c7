"""The format TensorRT engine: for the GPU at hand with TensorRT; with TensorRT-RTX for others, without any GPU."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internimage.errors import MissingExtra
from internimage.exporting.formats import Format
from internimage.exporting.onnx import file as onnx
from internimage.exporting.options import WriteOptions
from internimage.flow import ExportGraph
from internimage.flow.graph import BATCH, Dimension

# GPU generations that an engine of TensorRT-RTX is built for; Turing multiplies in float16 alone.
RTX_PROCESSORS = ("SM80", "SM86", "SM89", "SM120", "SM121")
RTX_HALF_PROCESSORS = ("SM75", *RTX_PROCESSORS)
MOST = {BATCH: 8}  # an engine reserves memory for its largest call
MOST_PIXELS = 1344
USUAL = {BATCH: 1}
USUAL_PIXELS = 224
MAX_ERRORS = 3
LIBRARIES = ("tensorrt", "tensorrt_rtx")


def find_library() -> tuple[Any, bool]:
    """Return the library to build with, and whether it is TensorRT-RTX.

    Raises:
        MissingExtra: neither is installed, or TensorRT alone where there is no GPU.
    """
    if torch.cuda.is_available() and importlib.util.find_spec("tensorrt") is not None:
        return importlib.import_module("tensorrt"), False
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise MissingExtra("tensorrt_rtx", "tensorrt", "an .engine file on a machine without a GPU")
    return importlib.import_module("tensorrt_rtx"), True


def check(options: WriteOptions) -> None:
    """Raise for what engines cannot be built of.

    Raises:
        ValueError: the operators or the opset are not those that TensorRT reads rightly.
        MissingExtra: no library is installed.
    """
    find_library()
    if options.operators == "deform_conv" or options.opset not in (None, 18):
        raise ValueError(
            "engines are built of GridSample in opset 18: TensorRT-RTX has no DeformConv, and TensorRT 10 samples "
            "wrongly by the GridSample of opset 20; leave operators and opset out"
        )


def write(graph: ExportGraph, options: WriteOptions, path: Path) -> dict[str, object]:
    """Write a graph, see `Format.write`; its free sizes are narrowed to those that the engine has memory for.

    Raises:
        ValueError: TensorRT does not build the graph; the message holds what it says.
    """
    library, is_rtx = find_library()
    graph.description = replace(graph.description, dimensions=tuple(map(_narrowed, graph.description.dimensions)))
    messages = _log_of(library)
    builder = library.Builder(messages)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, messages)
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "between.onnx"
        notes = onnx.FORMAT.write(graph, replace(options, operators="grid_sample", opset=18), between)
        if not parser.parse_from_file(str(between)):
            found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise ValueError(f"TensorRT does not read this graph: {'; '.join(found[:MAX_ERRORS])}")
    settings = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for tensor, shapes in _profile(graph):
        profile.set_shape(tensor, *shapes)
    settings.add_optimization_profile(profile)
    processors = _processors(library, settings, options) if is_rtx else (_this_processor(),)
    engine = builder.build_serialized_network(network, settings)
    if engine is None:
        raise ValueError(f"TensorRT does not build this graph: {'; '.join(messages.errors[:MAX_ERRORS])}")
    path.write_bytes(memoryview(engine))
    return {
        **notes,
        "format": FORMAT.name,
        "library": f"{library.__name__} {library.__version__}",
        "processors": list(processors),
    }


def _narrowed(dimension: Dimension) -> Dimension:
    most = MOST.get(dimension.name, MOST_PIXELS)
    return replace(dimension, most=max(dimension.least, min(dimension.most, most) // dimension.step * dimension.step))


def _profile(graph: ExportGraph) -> Iterator[tuple[str, tuple[tuple[int, ...], ...]]]:
    """Yield name and smallest, usual and largest shape of each input."""
    free = {dimension.name: dimension for dimension in graph.description.dimensions}

    def usual(dimension: Dimension) -> int:
        wanted = USUAL.get(dimension.name, USUAL_PIXELS) // dimension.step * dimension.step
        return min(max(wanted, dimension.least), dimension.most)

    for tensor in graph.description.inputs:
        rows = [
            (side, side, side) if isinstance(side, int) else (free[side].least, usual(free[side]), free[side].most)
            for side in tensor.shape
        ]
        yield tensor.name, tuple(zip(*rows, strict=True))


def _processors(library: Any, settings: Any, options: WriteOptions) -> tuple[str, ...]:
    """Say which GPUs an engine of TensorRT-RTX is for, and return their names."""
    names = RTX_HALF_PROCESSORS if options.dtype == "float16" else RTX_PROCESSORS
    settings.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        settings.set_compute_capability(getattr(library.ComputeCapability, name), index)
    return names


def _this_processor() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"SM{major}{minor}"


def _log_of(library: Any) -> Any:
    """Return a logger that keeps errors, which TensorRT otherwise prints."""

    class Log(library.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Log()


class EngineRunner:
    """An engine on the GPU of this machine.

    Args:
        path: the file.

    Raises:
        ValueError: the engine is for another GPU or another release of TensorRT.
    """

    def __init__(self, path: Path) -> None:
        errors: list[str] = []
        for name in LIBRARIES:
            if importlib.util.find_spec(name) is None:
                continue
            self.library = importlib.import_module(name)
            self.log = _log_of(self.library)
            self.runtime = self.library.Runtime(self.log)
            self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
            if self.engine is not None:
                break
            errors += self.log.errors[:MAX_ERRORS]
        else:
            raise ValueError(f"no TensorRT of this machine opens {path}: {'; '.join(errors)}")
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        is_input = {name: self.engine.get_tensor_mode(name) == self.library.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if is_input[name]]
        self.outputs = [name for name in names if not is_input[name]]

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `Runner`."""
        context = self.engine.create_execution_context()
        given = [value.cuda() for value in inputs]
        for name, value in zip(self.inputs, given, strict=True):
            context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, value.data_ptr())
        found: list[Tensor] = []
        for name in self.outputs:
            dtype = getattr(torch, self.library.nptype(self.engine.get_tensor_dtype(name)).__name__)
            found.append(torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device="cuda"))
            context.set_tensor_address(name, found[-1].data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return tuple(value.cpu() for value in found)


def description(path: Path) -> str:
    """Return the document of a file, which lies beside it: an engine has no place for it.

    Raises:
        FileNotFoundError: it is not there.
    """
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        raise FileNotFoundError(f"{beside} is missing, which says what {path} takes and gives; copy it there, too")
    return beside.read_text(encoding="utf-8")


def why_not_run() -> str | None:
    """Say why an engine cannot run on this machine."""
    return None if torch.cuda.is_available() else "this machine has no GPU that CUDA knows"


FORMAT = Format(
    name="TensorRT engine",
    runtime="TensorRT",
    packages=(),
    extra="tensorrt",
    dtypes=("float32", "float16"),
    write=write,
    open=EngineRunner,
    description=description,
    check=check,
    why_not_run=why_not_run,
)
