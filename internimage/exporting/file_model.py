"""A model whose network is an exported file: it predicts and is measured like the model that was exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from internimage import tasks
from internimage.data.images.raster import original_size, pixels_of
from internimage.data.images.read import ImageInput, read_image
from internimage.exporting.document import Document
from internimage.exporting.formats import Runner
from internimage.exporting.graphs import build_graph
from internimage.exporting.sizes import check_inputs
from internimage.flow import ExportGraph, Network, TaskConfig, TaskModel
from internimage.types import Images

if TYPE_CHECKING:
    from typing_extensions import Self

    Base = TaskModel[Any]
else:
    Base = nn.Module

PIXELS, VALID_HW = "pixels", "valid_hw"
# Inputs of graphs by name, in the order in which the `forward` of models takes them.
INPUTS = (PIXELS, VALID_HW, "metadata")


class FileModel(Base):
    """What a model does otherwise when its network is a file; `file_model` puts it before the model's class."""

    graph: ExportGraph
    runner: Runner
    source: str

    @property
    def device(self) -> torch.device:
        """Where its inputs are read and its results arrive."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of its inputs and outputs, whatever the file computes in."""
        return torch.float32

    @property
    def input_hw(self) -> tuple[int, int] | None:
        """(height, width) of the inputs in pixels where these are fixed, None for free ones or images of uint8."""
        height, width = self.graph.description.inputs[0].shape[2:]
        fits = isinstance(height, int) and isinstance(width, int) and not self.graph.description.options.preprocess
        return (int(height), int(width)) if fits else None

    def forward(self, *inputs: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # of any task
        """Run the file on what the model's own `forward` takes, and return the same.

        A file that takes another number of images is called as often as needed, where the outputs are one tensor.
        """
        named = zip(INPUTS, inputs, strict=False)  # the last ones may be left out
        given = {name: value for name, value in named if value is not None}
        number, most = len(given[PIXELS]), self.graph.description.inputs[0].shape[0]
        if number == most or isinstance(most, str):
            return self.graph.raw(self.run_graph(given))
        found: list[Any] = []
        for start in range(0, number, most):
            index = torch.arange(start, start + most).clamp(
                max=number - 1
            )  # the last image again where some are missing
            found.append(self.graph.raw(self.run_graph({name: value[index] for name, value in given.items()})))
        if not found or not all(isinstance(part, Tensor) for part in found):
            raise ValueError(f"{self.source} takes {most} images of a call, given {number}")
        return torch.cat(found)[:number]

    def run_graph(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the file on its inputs by name; others are left out, and without `valid_hw` nothing is padded.

        Raises:
            ValueError: the file takes no inputs of this size.
        """
        first, *others = self.graph.description.inputs
        image = given[first.name]
        if any(tensor.name == VALID_HW for tensor in others):
            given = {VALID_HW: torch.tensor(image.shape[2:]).expand(len(image), 2), **given}
            missing = [
                max(0, wanted - side) if isinstance(wanted, int) else 0
                for wanted, side in zip(first.shape[2:], image.shape[2:], strict=True)
            ]
            given = {**given, first.name: functional.pad(image, (0, missing[1], 0, missing[0]))}
        inputs = [given[tensor.name].contiguous() for tensor in (first, *others)]
        check_inputs(self.graph.description, inputs, self.source)
        return self.runner(inputs)

    def preprocess(self, images: Sequence[ImageInput], *settings: Any) -> Images:
        """Read images; what the file does itself is left to it."""
        if not self.graph.description.options.preprocess:
            return super().preprocess(images, *settings)
        config = cast("TaskConfig", self.config).preprocess
        read = [read_image(source, config.reading) for source in images]
        sizes = [original_size(image) for image in read]
        most = [max((size[axis] for size in sizes), default=0) for axis in (0, 1)]
        pixels = torch.zeros(len(read), *most, config.channels, dtype=torch.uint8)
        for row, image, (height, width) in zip(pixels, read, sizes, strict=True):
            row[:height, :width] = torch.from_numpy(pixels_of(image)).reshape(height, width, -1)
        if self.graph.description.options.layout == "nchw":
            pixels = pixels.permute(0, 3, 1, 2)
        return Images(pixels, torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2), tuple(sizes))

    def predict_batch(self, images: Images, **options: Any) -> list[Any]:
        """Predict a batch in as many calls of the file as it takes."""
        asked = self.graph.description.options
        if options.get("probabilities") and asked.postprocess:
            raise ValueError(f"{self.source} gives label maps and no probabilities; export without postprocessing")
        results: list[Any] = []
        with torch.inference_mode():
            for part, number in self._calls(images):
                if asked.preprocess or asked.postprocess:
                    found = self.graph.results(self.run_graph(_by_name(part, self.graph)), part)
                else:
                    found = super().predict_batch(part, **options)
                results += found[:number]
        return results

    def _calls(self, images: Images) -> Iterator[tuple[Images, int]]:
        """Yield what is predicted in one call of the file, and how many images of it are asked for."""
        description = self.graph.description
        most = description.inputs[0].shape[0]
        asked = description.options
        sees_padding = asked.preprocess or asked.postprocess  # otherwise the model calls the graph size by size
        is_padded = bool((images.valid_hw != torch.tensor(_sides(images, self.graph))).any())
        size = 1 if sees_padding and is_padded else (most if isinstance(most, int) else max(1, len(images)))
        for start in range(0, len(images), size):
            index = torch.arange(start, start + (most if isinstance(most, int) else size)).clamp(max=len(images) - 1)
            if not isinstance(most, int):
                index = index.unique()
            part = _chosen(images, index)
            yield (_cropped(part, self.graph) if size == 1 and is_padded else part), min(size, len(images) - start)

    def fuse(self, *, graphs: int = 0) -> Self:
        """Return self: the runtime has prepared the file already; it records nothing on a GPU.

        Raises:
            ValueError: `graphs` are asked for.
        """
        if graphs:
            raise ValueError(f"{self.source} is an exported file, which records no graphs on a GPU; leave graphs out")
        return self

    def loss(self, images: Images, targets: Any) -> NoReturn:
        """Refuse: a file has no gradients."""
        raise ValueError(f"{self.source} is an exported file, which cannot be trained; train the model it was made of")

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: the weights are inside of the file."""
        raise ValueError(f"{self.source} is an exported file, whose weights cannot be taken out; take its model's")

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Stay where the runtime is; `load_exported` refuses other devices."""
        return self


def file_model(document: Document, runner: Runner, source: str, sha256: str) -> Network:
    """Return a model of the document's task, or a bare backbone, whose network is an open file.

    It has no weights: `forward` runs the file, everything around it is the model's own code.

    Args:
        document: what the file says of itself.
        runner: the open file.
        source: what messages call it.
        sha256: of its content, in hexadecimal digits; the only thing that tells two such models apart.
    """
    with torch.device("meta"):
        model = tasks.build(document.config).eval()
    graph = build_graph(model, document.description.options)
    graph.description = document.description
    for part in model.modules():  # kept for what they are, not for what they hold
        part._parameters.clear()
        part._buffers.clear()
    for part in model.children():
        part.forward = _refuse_parts(source)
    kind = type(model)
    vars(model).update(graph=graph, runner=runner, source=source)  # no parts of it: the graph holds the model
    model.register_buffer("sha256", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))
    object.__setattr__(model, "__class__", type(f"{kind.__name__}File", (FileModel, kind), {}))
    return model


def _refuse_parts(source: str) -> Any:
    def refuse(*inputs: object, **options: object) -> NoReturn:
        raise ValueError(f"{source} runs as a whole; for the maps of its backbone, export the bare backbone")

    return refuse


def _sides(images: Images, graph: ExportGraph) -> tuple[int, int]:
    """Return height and width of a batch."""
    options = graph.description.options
    height, width = (
        images.pixels.shape[1:3] if options.preprocess and options.layout == "nhwc" else images.pixels.shape[2:]
    )
    return height, width


def _by_name(images: Images, graph: ExportGraph) -> dict[str, Tensor]:
    """Return the inputs that a batch has for a graph."""
    first = graph.description.inputs[0].name
    given = {first: images.pixels, VALID_HW: images.valid_hw}
    return given if images.metadata is None else {**given, "metadata": images.metadata}


def _chosen(images: Images, index: Tensor) -> Images:
    """Return images of a batch by their indices."""
    sizes = tuple(images.original_hw[i] for i in index.tolist())
    metadata = None if images.metadata is None else images.metadata[index]
    return Images(images.pixels[index], images.valid_hw[index], sizes, metadata)


def _cropped(images: Images, graph: ExportGraph) -> Images:
    """Cut off the padding that one image has for the sake of others in its batch."""
    steps = {free.name: free.step for free in graph.description.dimensions}
    first = graph.description.inputs[0]
    options = graph.description.options
    axes = (1, 2) if options.preprocess and options.layout == "nhwc" else (2, 3)
    pixels = images.pixels
    for axis, valid in zip(axes, images.valid_hw[0].tolist(), strict=True):
        step = steps.get(str(first.shape[axis]), pixels.shape[axis])
        pixels = pixels.narrow(axis, 0, min(-(-valid // step) * step, pixels.shape[axis]))
    return Images(pixels, images.valid_hw, images.original_hw, images.metadata)
