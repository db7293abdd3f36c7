"""Detectors as a user meets them: images in, objects out, bad input, training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.detection import DETECTORS, RCNN
from internimage.detection.rcnn.loss import choose_at_random
from internimage.types import DetectionTargets, Images
from internimage.visualize import draw

from .conftest import NAMES, small_config, small_detector

ALL = sorted(DETECTORS)


@pytest.mark.parametrize("name", ALL)
def test_objects_lie_in_the_original_image(name: str, photo: np.ndarray) -> None:
    model = small_detector(name)
    [found] = model.predict([photo])
    assert len(found) > 0 and found.original_hw == (60, 90) and set(found.names) <= set(NAMES)
    assert (found.boxes_xyxy >= 0).all() and (found.boxes_xyxy <= torch.tensor([90.0, 60, 90, 60])).all()
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    has_masks = "mask" in name
    assert (found.masks is not None) == has_masks
    if found.masks is not None:
        assert found.masks.shape == (len(found), 60, 90) and found.masks.dtype == torch.bool
    json.dumps(found.to_dict(masks=True))
    assert draw(replace(found, scores=found.scores * 0 + 0.9), photo).width >= 90


@pytest.mark.parametrize("name", ALL)
def test_a_batch_answers_like_single_images_of_the_same_size(name: str, photo: np.ndarray) -> None:
    model = small_detector(name)
    other = photo[::-1].copy()
    singles = model.predict([photo, other])
    together = model.predict([photo, other], batch_size=2)
    for one, two in zip(singles, together, strict=True):
        torch.testing.assert_close(one.scores, two.scores, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one.boxes_xyxy[:3], two.boxes_xyxy[:3], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["mask_rcnn", "dino"])
def test_neighbors_of_other_sizes_change_nothing(name: str, photo: np.ndarray) -> None:
    model = small_detector(name)
    images = [photo, photo.transpose(1, 0, 2).copy(), photo[:, :40].copy(), photo[::-1].copy(), photo[:30].copy()]
    singles = model.predict(images)
    together = model.predict(images, batch_size=5)
    for one, two in zip(singles, together, strict=True):
        assert one.original_hw == two.original_hw and len(one) == len(two) > 0
        torch.testing.assert_close(one.scores, two.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(one.boxes_xyxy[:3], two.boxes_xyxy[:3], rtol=1e-3, atol=1e-2)
    batch = model.preprocess(images)
    with torch.inference_mode():
        images = model.run(batch).image
    assert images.tolist() == sorted(images.tolist()) and set(images.tolist()) == set(range(5))


@pytest.mark.parametrize("name", ALL)
def test_an_empty_batch_has_no_objects(name: str) -> None:
    model = small_detector(name)
    with torch.inference_mode():
        raw, one = model(torch.rand(0, 3, 64, 96)), model(torch.rand(1, 3, 64, 96))
    assert model.predict([]) == [] and model.postprocess(raw, model.preprocess([])) == []
    for field, other in zip(raw, one, strict=True):
        assert (field is None) == (other is None)
        if field is not None:
            assert (len(field), field.shape[1:], field.dtype) == (0, other.shape[1:], other.dtype)
    with pytest.raises(ValueError, match="at least one image"):
        model.loss(model.preprocess([]), [])


@pytest.mark.parametrize("name", ["mask_rcnn", "dino"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (500, 2), (33, 47)])
def test_odd_images(name: str, shape: tuple[int, ...]) -> None:
    [found] = small_detector(name).predict([np.full(shape, 200, np.uint8)])
    assert found.original_hw == shape[:2] and found.boxes_xyxy.isfinite().all()


def test_a_second_pass_is_a_cascade_of_the_same_head(photo: np.ndarray) -> None:
    once = small_detector("mask_rcnn")
    assert isinstance(once, RCNN)
    twice = RCNN(replace(once.config, last_stage_passes=2)).eval()
    twice.load_state_dict(once.state_dict())
    cascade = RCNN(replace(once.config, stages=once.config.stages * 2)).eval()
    second = {key.replace("heads.0", "heads.1"): value for key, value in once.state_dict().items()}
    cascade.load_state_dict(once.state_dict() | second)
    [expected], [found], [first] = (model.predict([photo]) for model in (cascade, twice, once))
    torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy)
    torch.testing.assert_close(found.scores, expected.scores)
    assert first.boxes_xyxy.shape != found.boxes_xyxy.shape or (first.boxes_xyxy - found.boxes_xyxy).abs().max() > 0.1
    with pytest.raises(ValueError, match="last_stage_passes"):
        replace(once.config, last_stage_passes=0)


def test_score_threshold_and_filter(photo: np.ndarray) -> None:
    model = small_detector("mask_rcnn")
    [every], [some] = model.predict([photo]), model.predict([photo], score_threshold=0.5)
    assert 0 < len(some) < len(every) and (some.scores >= 0.5).all()
    cats = every.filter(classes=["cat"], limit=2)
    assert set(cats.names) <= {"cat"} and len(cats) <= 2 and cats.masks is not None and len(cats.masks) == len(cats)
    assert len(model.predict([photo], score_threshold=1.0)[0]) == 0
    with pytest.raises(ValueError, match=r"0\.\.1"):
        model.predict([photo], score_threshold=1.5)
    with pytest.raises(ValueError, match="unknown class 'horse'"):
        every.filter(classes=["horse"])


def test_nothing_found_is_an_empty_result(photo: np.ndarray) -> None:
    model = small_detector("mask_rcnn")
    assert isinstance(model, RCNN)
    with torch.no_grad():
        model.box_heads[0].classifier.weight.zero_()  # type: ignore[union-attr]
        model.box_heads[0].classifier.bias.copy_(torch.tensor([-50.0, -50, -50, 50]))  # type: ignore[union-attr]
    [found] = model.predict([photo])
    assert len(found) == 0 and found.masks is not None and found.masks.shape == (0, 60, 90)
    assert found.to_coco(7) == [] and draw(found, photo).width >= 90


NAN_PLACES = [
    *((name, part) for name in ("mask_rcnn", "cascade_mask_rcnn") for part in ("backbone", "neck", "rpn", "box_heads")),
    *((name, "mask_heads") for name in ("mask_rcnn", "cascade_mask_rcnn")),
    *(("dino", part) for part in ("backbone", "neck", "transformer.proposal_fc", "transformer.decoder_norm")),
    *(("dino", part) for part in ("classifiers.5", "classifiers.6", "regressors")),
]


@pytest.mark.parametrize(("name", "part"), NAN_PLACES)
def test_nan_weights_are_an_error(name: str, part: str, photo: np.ndarray) -> None:
    model = small_detector(name)
    every = list(model.get_submodule(part).parameters())
    for parameter in (every[0], every[len(every) // 2], every[-1]):
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.fill_(float("nan"))
        with pytest.raises(ValueError, match="NaN or infinite"):
            model.predict([photo])
        with torch.no_grad():
            parameter.copy_(before)
    assert len(model.predict([photo])[0]) > 0


@pytest.mark.parametrize("name", ["mask_rcnn", "dino"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (20_000, 40, 3), (40, 20_000, 3), (30, 40)])
def test_extreme_images(name: str, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    [found] = small_detector(name).predict([pixels])
    assert found.original_hw == shape[:2]
    assert found.boxes_xyxy.isfinite().all() and (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= torch.tensor([shape[1], shape[0]] * 2)).all()
    if found.run_length_masks is not None:
        assert all(int(runs.sum()) == shape[0] * shape[1] for runs in found.run_length_masks.counts)
    assert min(draw(found, pixels).size) >= 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_gray_and_alpha_images(mode: str, photo: np.ndarray) -> None:
    gray = PIL.Image.fromarray(photo[..., 0])
    image = PIL.Image.new("I;16", (90, 60), 9000) if mode == "I;16" else gray.convert(mode)
    [found] = small_detector("faster_rcnn").predict([image])
    assert found.original_hw == (60, 90)


def test_coco_entries(photo: np.ndarray) -> None:
    [found] = small_detector("mask_rcnn").predict([photo])
    entries = found.to_coco(42, category_ids=[1, 17, 90])
    left, top, right, bottom = found.boxes_xyxy[0].tolist()
    assert entries[0]["bbox"] == [left, top, right - left, bottom - top] and entries[0]["image_id"] == 42
    assert {entry["category_id"] for entry in entries} <= {1, 17, 90}
    assert entries[0]["segmentation"]["size"] == [60, 90]
    json.dumps(entries)


@pytest.mark.parametrize("name", ALL)
def test_training_gives_every_parameter_a_gradient(
    name: str, training_batch: tuple[Images, list[DetectionTargets]]
) -> None:
    model = small_detector(name).train()
    losses = model.loss(*training_batch)
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None]
    assert not without, without[:5]


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade_mask_rcnn", "dino"])
def test_a_batch_without_objects_trains(name: str, training_batch: tuple[Images, list[DetectionTargets]]) -> None:
    images, [_, empty] = training_batch
    losses = small_detector(name).train().loss(images, [empty, empty])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()


def test_targets_are_checked(training_batch: tuple[Images, list[DetectionTargets]]) -> None:
    images, [full, empty] = training_batch
    model = small_detector("mask_rcnn").train()
    with pytest.raises(ValueError, match="one entry per image"):
        model.loss(images, [full])
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        model.loss(images, [replace(full, labels=full.labels + 1), empty])
    with pytest.raises(ValueError, match="masks must be"):
        model.loss(images, [replace(full, masks=None), empty])


def test_true_boxes_without_area_are_left_out(training_batch: tuple[Images, list[DetectionTargets]]) -> None:
    images, [full, empty] = training_batch
    boxes = full.boxes_xyxy.clone()
    boxes[1, 2] = boxes[1, 0]
    for name in ("mask_rcnn", "dino"):
        losses = small_detector(name).train().loss(images, [replace(full, boxes_xyxy=boxes), empty])
        assert all(value.isfinite() for value in losses.values())


def test_examples_are_drawn_without_repetition() -> None:
    candidates = torch.arange(100, 200)
    drawn = choose_at_random(candidates, 30)
    assert len(set(drawn.tolist())) == 30 and set(drawn.tolist()) <= set(candidates.tolist())
    assert not torch.equal(drawn, choose_at_random(candidates, 30))


def test_settings_are_checked() -> None:
    config = small_config("dino")
    for changes, text in (
        ({"num_classes": 0}, "at least 1"),
        ({"num_classes": 4}, "4 names"),
        ({"num_backbones": 3}, "1 or 2"),
        ({"feedforward_slices": 5}, "must divide"),
    ):
        with pytest.raises(ValueError, match=text):
            replace(config, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one box stage"):
        replace(small_config("mask_rcnn"), stages=())


def test_a_fresh_dino_with_sliced_layers_is_the_same_function() -> None:
    from internimage.detection.dino.transformer import SlicedFeedForward
    from internimage.layers.feed_forward import FeedForward

    whole, sliced = FeedForward(8, 32), SlicedFeedForward(8, 32, 4)
    with torch.no_grad():
        for i, (first, second) in enumerate(zip(sliced.fc1, sliced.fc2, strict=True)):
            part = slice(8 * i, 8 * i + 8)
            whole.fc1.weight[part], whole.fc1.bias[part] = first.weight, first.bias  # type: ignore[union-attr]
            whole.fc2.weight[:, part] = second.weight  # type: ignore[union-attr]
        whole.fc2.bias.copy_(sliced.bias.normal_())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(sliced(x), whole(x))
