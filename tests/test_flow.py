from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from internimage.backbones import variant
from internimage.classification import ClassifierConfig
from internimage.flow import ImageInput, TaskModel
from internimage.types import Images


class Mean(TaskModel[float]):
    """The smallest model that obeys the flow: one number for each image, its mean times a weight."""

    task = "mean"

    def __init__(self) -> None:
        super().__init__(ClassifierConfig(variant("internimage_pico"), num_classes=1))
        self.weight = nn.Parameter(torch.ones(1))
        self.batches: list[tuple[int, bool, bool]] = []

    def preprocess(self, images: Sequence[ImageInput]) -> Images:
        pixels = torch.stack([torch.as_tensor(image).float() for image in images])
        size = torch.tensor([pixels.shape[2:]] * len(images))
        return Images(pixels, size, tuple((pixels.shape[2], pixels.shape[3]) for _ in images))

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> Tensor:
        self.batches.append((len(pixels), self.training, torch.is_inference_mode_enabled()))
        return pixels.mean((1, 2, 3)) * self.weight

    def postprocess(self, outputs: Tensor, images: Images) -> list[float]:
        return outputs.tolist()

    def loss(self, images: Images, targets: Tensor) -> dict[str, Tensor]:
        return {"square": (self.run(images) - targets).square().mean()}


def images(count: int) -> list[np.ndarray]:
    return [np.full((3, 2, 2), i, dtype=np.uint8) for i in range(count)]


def test_predict_splits_into_batches_without_gradients_in_evaluation_mode() -> None:
    model = Mean()
    assert model.predict(images(5), batch_size=2) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert model.batches == [(2, False, True), (2, False, True), (1, False, True)]
    assert model.training


def test_a_tuple_is_a_list_of_images_and_one_image_is_none() -> None:
    model = Mean()
    assert model.predict(tuple(images(2))) == [0.0, 1.0]
    with pytest.raises(TypeError, match="list of images, given one ndarray"):
        model.predict(images(1)[0])


def test_loss_has_gradients() -> None:
    model = Mean()
    model.loss(model.preprocess(images(2)), torch.zeros(2))["square"].backward()
    assert model.weight.grad is not None and model.weight.grad.item() == 1.0


def test_device_and_dtype_follow_the_parameters() -> None:
    model = Mean().double()
    assert model.dtype == torch.float64 and model.device == torch.device("cpu")
    assert model.predict(images(1)) == [0.0]


def test_stations_must_be_written() -> None:
    with pytest.raises(TypeError, match="abstract"):
        TaskModel()
