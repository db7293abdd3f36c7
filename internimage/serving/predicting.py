"""What a worker does with images: bytes in, JSON or a drawn PNG out; one that is broken does not stop the others."""

from __future__ import annotations

import base64
import io
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import PIL.Image
import torch

from internimage import tasks
from internimage.data.images.image_file import MAX_PIXELS
from internimage.data.images.raster import Image, original_size
from internimage.data.images.read import BadImage, read_image
from internimage.data.untrusted.archives import PackedFile
from internimage.files import json_text
from internimage.flow import PredictionOptions, Presented, TaskModel
from internimage.hub.load import load
from internimage.visualize import distinct_color, draw

logger = logging.getLogger(__name__)

PNG, JSON, TEXT = "image/png", "application/json", "text/plain; charset=utf-8"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_DRAWN_SIDE = 4096  # of drawings: a PNG of the largest images would take half a minute
NO_MEMORY = "there is not enough memory for this image here; make it smaller, or try again later"


@dataclass(frozen=True)
class SentImage(PackedFile):
    """An image that a client has sent; as a path it is a name for messages, which no file system sees."""

    content: bytes

    def __fspath__(self) -> str:
        return "the image.tif" if self.content.startswith(TIFF_STARTS) else "the image"

    def __str__(self) -> str:  # a dataclass without it would show its content
        return self.__fspath__()

    def read(self) -> bytes:
        """Return the content."""
        return self.content


@dataclass(frozen=True)
class Reply:
    """What becomes of one image.

    Args:
        status: of HTTP: 200, 400 or 415 for an image that cannot be read, 503 for one that does not fit into memory.
        media: type of the content; a text says what is wrong.
        content: the prediction, or that text.
    """

    status: int
    media: str
    content: bytes


def refusal(status: int, reason: str) -> Reply:
    """Return the reply for an image that has no prediction."""
    return Reply(status, TEXT, reason.encode())


class Predictor:
    """A loaded model and what the server asks of it.

    Args:
        source: a name of the catalog, a file or a folder.
        job: what the front says: "device", "dtype", "backend", "pixels" (of an image), "batch" (images), "threads".

    Raises:
        ValueError: the source holds a bare backbone.
    """

    def __init__(self, source: str, job: Mapping[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        device = ("cuda" if torch.cuda.is_available() else "cpu") if job["device"] == "auto" else job["device"]
        model = load(source, device=device, dtype=getattr(torch, job["dtype"]), backend=job["backend"])
        if not isinstance(model, TaskModel):
            raise ValueError(f"{source} holds a bare backbone, which predicts nothing; serve a whole model")
        self.model = cast("TaskModel[Any]", model)
        self.task = tasks.of_model(self.model)
        self.source, self.batch = source, job["batch"]
        self.max_pixels = min(job["pixels"], MAX_PIXELS)

    def warm_up(self) -> dict[str, Any]:
        """Predict for a black image, on a GPU also for a batch of them; return what clients may know of the model."""
        config = self.model.config
        hw = self.task.usual_hw(config)
        image = read_image(np.zeros((*hw, config.preprocess.channels), np.uint8), config.preprocess.reading)
        options = {"top_k", "masks", *self.task.prediction_options} - {"coco"}
        try:
            [result] = self.model.predict([image])
            if self.model.device.type != "cpu":
                self.model.predict([image] * self.batch, batch_size=self.batch)
        except ValueError as error:  # such as an exported file that takes images of another size only
            logger.warning("%s was not warmed up: %s", self.source, error)
        else:
            presented = self.task.present(result, PredictionOptions(), 0)
            draw(presented.result, np.zeros((*hw, 3), np.uint8))
            if presented.label_map is None:
                options -= {"masks"} - self.task.prediction_options
        return {
            "task": self.task.name,
            "source": self.source,
            "num_classes": config.num_classes,
            "class_names": None if config.class_names is None else list(config.class_names),
            "input_hw": list(hw),
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "options": sorted(options),
        }

    def predict(self, contents: Sequence[bytes], asked: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """Return a reply for each image, in the order given."""
        replies: dict[int, Reply] = {}
        images: dict[int, Image] = {}
        for i, (content, wanted) in enumerate(zip(contents, asked, strict=True)):
            try:
                images[i] = self._read(content, is_drawn=wanted["form"] == "png")
            except BadImage as error:
                is_unknown = isinstance(error.__cause__, PIL.UnidentifiedImageError)
                replies[i] = refusal(415 if is_unknown else 400, str(error))
        for indices in self._groups(images):
            for i, result in zip(indices, self._results([images[i] for i in indices]), strict=True):
                replies[i] = result if isinstance(result, Reply) else self._reply(result, images[i], asked[i])
        return [replies[i] for i in range(len(contents))]

    def _read(self, content: bytes, *, is_drawn: bool) -> Image:
        preprocess = self.model.config.preprocess
        network_hw = None if is_drawn else preprocess.network_hw  # drawn are all pixels
        return read_image(SentImage(content), preprocess.reading, max_pixels=self.max_pixels, network_hw=network_hw)

    def _groups(self, images: Mapping[int, Image]) -> list[list[int]]:
        """Put images together that the network sees in one size: none is padded, and computed, for another one."""
        sizes = {i: self.model.config.preprocess.network_hw(original_size(image)) for i, image in images.items()}
        order = sorted(images, key=sizes.__getitem__)
        return [list(group) for _, group in itertools.groupby(order, key=sizes.__getitem__)]

    def _results(self, images: Sequence[Image]) -> list[Any]:
        """Predict for images of one size; where that fails, for each alone, so that only the guilty one is refused."""
        try:
            return self.model.predict(images, batch_size=len(images))
        except (ValueError, MemoryError, torch.OutOfMemoryError) as error:
            if len(images) > 1:
                return [result for image in images for result in self._results([image])]
            if isinstance(error, ValueError):
                return [refusal(400, str(error))]
            logger.warning("an image of (height, width) %s did not fit into memory", original_size(images[0]))
            return [refusal(503, NO_MEMORY)]

    def _reply(self, result: Any, image: Image, wanted: Mapping[str, Any]) -> Reply:
        options = PredictionOptions(
            top_k=wanted["top_k"],
            score_threshold=wanted["score_threshold"],
            classes=None if wanted["classes"] is None else tuple(wanted["classes"]),
            masks=wanted["masks"],
        )
        try:
            presented = self.task.present(result, options, 0)
        except ValueError as error:  # a class that the model does not know
            return refusal(400, str(error))
        if wanted["form"] == "png":
            return Reply(200, PNG, self._drawn(presented, image, wanted["score_threshold"]))
        row = {"original_hw": list(result.original_hw), **presented.row}
        if wanted["masks"] and presented.label_map is not None:
            row["label_map"] = _label_map(presented.label_map())
        return Reply(200, JSON, json_text(row, ensure_ascii=False).encode())

    def _drawn(self, presented: Presented, image: Image, score_threshold: float | None) -> bytes:
        threshold = {} if score_threshold is None else {"score_threshold": score_threshold}
        longest = MAX_DRAWN_SIDE if max(original_size(image)) > MAX_DRAWN_SIDE else None
        return _png(draw(presented.result, image, longest_side=longest, **threshold))


def _label_map(image: PIL.Image.Image) -> dict[str, Any]:
    """Return a label map as a gray PNG whose values are the class indices, and the color of each class in it."""
    palette = image.getpalette()
    labels = np.asarray(image)
    colors = {
        int(i): palette[3 * i : 3 * i + 3] if palette else list(distinct_color(int(i))) for i in np.unique(labels)
    }
    return {"png": base64.b64encode(_png(PIL.Image.fromarray(labels))).decode(), "colors": colors}


def _png(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)  # a third of the time of the usual 6, for files a little larger
    return buffer.getvalue()
