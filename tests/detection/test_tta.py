"""Test-time augmentation: several views of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from internimage.backbones import variant
from internimage.detection import DETECTORS, RCNN, DetectionPreprocess, Detector, build_detector
from internimage.detection.postprocess import RawDetections
from internimage.detection.tta import DetectionTTA, predict_multi_scale, usual_scales
from internimage.types import Images

from .recited import small_settings


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    model = build_detector(small_settings(DETECTORS["mask_rcnn"](variant("internimage_pico"), 3)))
    assert isinstance(model, RCNN)
    with torch.no_grad():
        for head in model.box_heads:
            head.classifier.weight.normal_(std=0.5)  # type: ignore[union-attr]
            head.regressor.weight.normal_(std=0.05)  # type: ignore[union-attr]
    return model.eval()


def test_one_view_is_the_plain_prediction(detector: Detector, photo: np.ndarray) -> None:
    [plain] = detector.predict([photo])
    one = DetectionTTA(((64, 96),), flip=False, method="nms", min_score=0.0)
    [found] = predict_multi_scale(detector, [photo], one)
    assert 0 < len(found) <= len(plain)
    for box, score, label in zip(found.boxes_xyxy, found.scores, found.labels, strict=True):
        near = ((plain.boxes_xyxy - box).abs().amax(dim=1) < 1e-3) & (plain.labels == label)
        assert (plain.scores[near] - score).abs().min() < 1e-6
    assert found.masks is not None and found.masks.shape[1:] == (60, 90)


class Marked:
    """Puts one box around what is bright in the input; of its mask, the half away from the middle is certain."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, images: Images) -> RawDetections:
        boxes = []
        self.sizes.append(tuple(images.valid_hw[0].tolist()))
        for pixels in images.pixels:
            rows, columns = (pixels[0] > 1).nonzero(as_tuple=True)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        number = len(boxes)
        mask = torch.zeros(number, 4, 4)
        is_left = boxes[0][0] + boxes[0][2] < images.pixels.shape[3]
        mask[:, :, slice(0, 2) if is_left else slice(2, 4)] = 1.0
        return RawDetections(
            torch.tensor(boxes, dtype=torch.float32),
            torch.full((number,), 0.8),
            torch.zeros(number, dtype=torch.int64),
            torch.arange(number),
            mask,
        )


def test_views_agree_on_a_bright_corner(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[16:48, 8:40] = 255
    marked = Marked()
    monkeypatch.setattr(detector, "run", marked)
    tta = DetectionTTA(((64, 96), (128, 192)), method="fusion")
    for found in predict_multi_scale(detector, [image, image], tta, batch_size=2):
        assert len(found) == 1 and found.scores.tolist() == pytest.approx([0.8])
        assert found.boxes_xyxy[0].tolist() == pytest.approx([8, 16, 40, 48], abs=1.0)
        assert found.masks is not None
        assert found.masks[0, 20:44, 10:22].all() and not found.masks[0, :, 26:].any()
    assert sorted(set(marked.sizes)) == [(64, 96), (128, 192)] and len(marked.sizes) == 4


def test_limits_and_modes(detector: Detector, photo: np.ndarray) -> None:
    detector.train()
    tta = DetectionTTA(((64, 96), (48, 72)), method="soft_nms", max_per_image=5)
    [few] = predict_multi_scale(detector, [photo], tta)
    assert len(few) == 5 and detector.training
    detector.eval()
    assert tta.num_views == 4
    assert usual_scales(detector, factors=(0.5, 1.0)).sizes == ((32, 48), (64, 96))


@pytest.mark.parametrize(
    "values", [{"sizes": ()}, {"sizes": ((96, 64),)}, {"sizes": ((8, 8),), "iou": 2.0}], ids=["none", "swapped", "iou"]
)
def test_wrong_settings(values: Any) -> None:
    with pytest.raises(ValueError, match=r"sizes|iou"):
        DetectionTTA(**values)


def test_nan_is_an_error(detector: Detector, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    good = detector.run

    def spoilt(images: Images) -> RawDetections:
        found = good(images)
        return found._replace(boxes=found.boxes * float("nan"))

    monkeypatch.setattr(detector, "run", spoilt)
    with pytest.raises(ValueError, match="NaN"):
        predict_multi_scale(detector, [photo], DetectionTTA(((64, 96),)))


def test_preprocess_config_is_kept(detector: Detector) -> None:
    assert detector.config.preprocess == DetectionPreprocess(shorter_side=64, longer_side=96)
