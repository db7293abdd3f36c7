from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from internimage.backbones import BackboneConfig
from internimage.checkpoints.catalog import info
from internimage.data import Sample
from internimage.data.labels import label_set
from internimage.evaluation.confusion import PixelConfusion
from internimage.segmentation import SegFormerConfig, SegmentationPreprocess, Segmentor, SegmentorConfig, SlidingWindow
from internimage.segmentation.evaluate import evaluate_segmentation
from internimage.segmentation.report import SegmentationReport, published_metrics, published_miou
from internimage.segmentation.submission import save_submission, submission_image
from internimage.segmentation.tta import PUBLISHED_RATIOS, SegmentationTTA, predict_multi_scale, published_scales
from internimage.segmentation.worst_images import compare, save_worst
from internimage.types import Segmentation

PARITY = Path(__file__).parents[1] / "parity" / "data" / "training"
RECORDED = np.load(PARITY / "metrics_segmentation.npz")
FACTS = json.loads((PARITY / "metrics_segmentation.json").read_text())
BACKBONE = BackboneConfig(channels=8, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))


class Reading(Segmentor):
    """Answers each pixel with its red value: data sets say what is answered."""

    def __init__(self, num_classes: int, **changes: Any) -> None:
        preprocess = SegmentationPreprocess(scale=None, mean=(0, 0, 0), std=(1 / 255,) * 3)
        config = SegmentorConfig(BACKBONE, num_classes, SegFormerConfig(channels=8), preprocess)
        super().__init__(dataclasses.replace(config, **changes))
        self.calls = 0

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> Tensor:
        assert not self.training
        self.calls += 1
        answer = pixels[:, 0].round().long()
        return torch.nn.functional.one_hot(answer, self.config.num_classes).movedim(-1, 1).float() * 9


class Pairs:
    """Targets, and images that hold the predictions; some are broken."""

    def __init__(
        self,
        pairs: list[tuple[np.ndarray, np.ndarray]],
        num_classes: int,
        *,
        broken: tuple[int, ...] = (),
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.pairs, self.broken = pairs, broken
        self.class_names = names or tuple(f"class {i}" for i in range(num_classes))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample[np.ndarray]:
        if index in self.broken:
            raise ValueError(f"{index}.png is broken")
        target, answer = self.pairs[index]
        image = PIL.Image.fromarray(np.repeat(answer[..., None], 3, axis=2).astype(np.uint8))
        return Sample(image, target.astype(np.uint8), f"{index}.png")


def recorded(case: str) -> Pairs:
    facts = FACTS[case]
    pairs = []
    for i in range(facts["images"]):
        target = RECORDED[f"{case}.gt_png.{i}"].astype(np.int64)
        if facts["reduce_zero_label"]:
            target = np.where(target == 0, 255, target - 1)
        pairs.append((target, RECORDED[f"{case}.pred.{i}"]))
    return Pairs(pairs, facts["classes"])


def small(count: int = 5, broken: tuple[int, ...] = ()) -> Pairs:
    random = np.random.default_rng(0)
    pairs = [(random.integers(0, 3, (6, 8)), random.integers(0, 3, (6, 8))) for _ in range(count)]
    pairs[1] = (pairs[1][0], pairs[1][0])
    pairs[2] = (np.full((6, 8), 255), pairs[2][1])
    return Pairs(pairs, 3, broken=broken)


@pytest.mark.parametrize("case", [case for case in FACTS if case != "cityscapes_150_outputs"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_recorded_cases(case: str, batch_size: int) -> None:
    report = evaluate_segmentation(Reading(FACTS[case]["classes"]), recorded(case), batch_size=batch_size)
    measured = {name: value for name, value, _ in report.rows()}
    assert measured == pytest.approx({name: FACTS[case][name] for name in ("mIoU", "mAcc", "aAcc")}, rel=1e-6)
    assert report.num_images == 4


def test_figures_of_each_image() -> None:
    calls: list[tuple[int, int]] = []
    report = evaluate_segmentation(
        Reading(3), small(), published={"mIoU": 0.5}, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(i, 5) for i in range(1, 6)]
    assert report.images[1].miou == 1.0 and np.isnan(report.images[2].miou)
    worst = report.worst(10)
    assert len(worst) == 4 and worst[-1].index == 1 and worst[0].miou <= worst[1].miou
    summary = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert summary["published_mIoU"] == 0.5 and summary["images"] == 5 and summary["worst"][0]["name"] == worst[0].name
    assert [row["name"] for row in summary["per_class"]] == ["class 0", "class 1", "class 2"]
    assert report.rows()[0] == ("mIoU", report.miou, 0.5)


def test_broken_images_are_left_out_and_listed() -> None:
    dataset = small(broken=(0, 3))
    report = evaluate_segmentation(Reading(3), dataset, batch_size=2, workers=1)
    assert report.skipped == ((0, "0.png is broken"), (3, "3.png is broken"))
    assert [score.index for score in report.images] == [1, 2, 4]
    alone = evaluate_segmentation(Reading(3), Pairs([dataset.pairs[i] for i in (1, 2, 4)], 3))
    assert torch.equal(report.confusion.counts, alone.confusion.counts)
    with pytest.raises(ValueError, match=r"more than 1 .*\n.*0\.png"):
        evaluate_segmentation(Reading(3), dataset, max_unreadable=1)


def cut_at(number: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        if done == number:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("tta", [None, SegmentationTTA((1.0,), flip=False), SegmentationTTA((1.0,), flip=True)])
def test_a_cut_evaluation_goes_on(tmp_path: Path, tta: SegmentationTTA | None) -> None:
    dataset, folder = small(broken=(1,)), tmp_path / "run"
    expected = evaluate_segmentation(Reading(3), dataset, tta=tta)
    torch.manual_seed(5)
    model = Reading(3)
    with pytest.raises(KeyboardInterrupt):
        evaluate_segmentation(model, dataset, tta=tta, folder=folder, progress=cut_at(3))
    with (folder / "progress.jsonl").open("a") as file:
        file.write('{"index":3,"na')  # the machine went down within a line
    model.calls = 0
    report = evaluate_segmentation(model, dataset, tta=tta, folder=folder)
    views = 1 if tta is None else tta.num_views
    assert model.calls == 2 * views
    assert torch.equal(report.confusion.counts, expected.confusion.counts)
    assert report.skipped == expected.skipped and str(report.images) == str(expected.images)
    assert evaluate_segmentation(model, dataset, tta=tta, folder=folder).num_images == 4
    assert model.calls == 2 * views
    assert [path.name for path in folder.iterdir()] == ["progress.jsonl"]


def test_progress_of_something_else_is_refused(tmp_path: Path) -> None:
    model = Reading(3)
    evaluate_segmentation(model, small(), folder=tmp_path)
    with pytest.raises(ValueError, match="another model;"):
        evaluate_segmentation(Reading(3), small(), folder=tmp_path)
    with pytest.raises(ValueError, match="another data set;"):
        evaluate_segmentation(model, small(4), folder=tmp_path)
    with pytest.raises(ValueError, match="another way of looking;"):
        evaluate_segmentation(model, small(), folder=tmp_path, tta=SegmentationTTA())
    file = tmp_path / "progress.jsonl"
    header, *lines = file.read_text().splitlines()
    for broken in (
        {"name": "a"},
        {"pixels": [[0, 0, 5]]},
        {"name": "a", "pixels": [[0, 0]]},
        {"name": "a", "pixels": [[3, 0, 5]]},
        {"name": "a", "pixels": [[0, 4, 5]]},
        {"name": "a", "pixels": [[0, 0, -5]]},
        {"name": "a", "pixels": "many"},
        {"name": "a", "pixels": [], "index": 5},
        [],
    ):
        entry = {"index": 1, **broken} if isinstance(broken, dict) else broken
        file.write_text("\n".join([header, lines[0], json.dumps(entry), ""]))
        with pytest.raises(ValueError, match=r"progress\.jsonl, line 3: no line of a segmentation progress file"):
            evaluate_segmentation(model, small(), folder=tmp_path)
    for first in (
        "[",
        "7",
        '{"format": "x"}',
        json.dumps(json.loads(header) | {"format": "internimage predictions 2"}),
    ):
        file.write_text(f"{first}\n")
        with pytest.raises(ValueError, match=r"is no segmentation progress file; choose another folder"):
            evaluate_segmentation(model, small(), folder=tmp_path)


def test_changed_images_and_masks_are_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The figures of old masks must not come back, and a finished file must be told apart from a measurement."""
    caplog.set_level("INFO")
    file, model = tmp_path / "run" / "progress.jsonl", Reading(2)
    for folder in ("val", "labels/val"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(3):
        PIL.Image.new("RGB", (8, 6), (1, 1, 1)).save(tmp_path / "val" / f"{i}.png")
        PIL.Image.new("L", (8, 6), 0).save(tmp_path / "labels/val" / f"{i}.png")
    (tmp_path / "classes.txt").write_text("no\nyes\n")

    def measured() -> tuple[float, int, str]:
        model.calls = 0
        caplog.clear()
        report = evaluate_segmentation(model, tmp_path, folder=file.parent)
        return report.aacc, model.calls, caplog.text

    assert measured()[:2] == (0.0, 3)
    aacc, calls, text = measured()
    assert (aacc, calls) == (0.0, 0) and f"all 3 images were measured before: {file}; remove it" in text
    for i in range(3):
        PIL.Image.new("L", (8, 6), 1).save(tmp_path / "labels/val" / f"{i}.png")
    aacc, calls, text = measured()
    assert (aacc, calls) == (1.0, 3)
    assert "ground truth of 3 images changed ('0.png', '1.png', '2.png') since it was written; they are" in text
    PIL.Image.new("RGB", (8, 6), (0, 0, 0)).save(tmp_path / "val" / "1.png")
    aacc, calls, text = measured()
    assert (round(aacc, 6), calls) == (round(2 / 3, 6), 1) and "1 image replaced ('1.png')" in text
    PIL.Image.new("RGB", (8, 6), (0, 0, 0)).save(tmp_path / "val" / "9.png")
    PIL.Image.new("L", (8, 6), 1).save(tmp_path / "labels/val" / "9.png")
    with pytest.raises(ValueError, match=r"another data set; .* start afresh; 1 image added \('9\.png'\)"):
        measured()


def test_progress_of_an_older_release_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    text = json.dumps({"format": "internimage segmentation progress 2", "done": 2, "confusion": [[1, 0], [0, 1]]})
    file.write_text(text)
    for folder in (tmp_path, file):
        with pytest.raises(ValueError, match=r"progress\.json was begun by another release; choose another folder"):
            evaluate_segmentation(Reading(3), small(), folder=folder)
    assert file.read_text() == text


def test_arguments_of_older_releases_warn(tmp_path: Path) -> None:
    file, plain = tmp_path / "closet.json", SegmentationTTA((1.0,), flip=False)
    older: dict[str, Any] = {"looks": plain, "progress_file": file, "save_seconds": 1.0, "published": 0.5}
    with pytest.warns(DeprecationWarning) as warned:
        report = evaluate_segmentation(Reading(3), small(), **older)
    assert len(warned) == 4 and file.is_file() and report.published == {"mIoU": 0.5} and report.tta == plain
    with pytest.warns(DeprecationWarning, match=r"SegmentationReport\.looks is tta now"):
        assert report.looks is report.tta
    with pytest.warns(DeprecationWarning, match=r"num_looks is num_views now"):
        assert plain.num_looks == 1
    with pytest.warns(DeprecationWarning, match=r"answered_pixels is predicted_pixels now"):
        assert torch.equal(report.confusion.answered_pixels, report.confusion.predicted_pixels)
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="looks is the old name of tta"):
        evaluate_segmentation(Reading(3), small(), **{"looks": None, "tta": plain})


def test_one_process_works_with_a_folder(tmp_path: Path) -> None:
    model = Reading(3)
    (tmp_path / ".progress.jsonl.0123abcd.tmp").touch()

    def again(done: int, total: int) -> None:
        with pytest.raises(BlockingIOError, match="in use by process"):
            evaluate_segmentation(model, small(), folder=tmp_path)
        evaluate_segmentation(model, small(3), folder=tmp_path / "other")

    evaluate_segmentation(model, small(), folder=tmp_path, progress=again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "progress.jsonl"]


def test_classes_must_agree() -> None:
    with pytest.raises(ValueError, match="3 classes but the data set has 2"):
        evaluate_segmentation(Reading(3), Pairs([], 2))
    named = Reading(3, class_names=("sky", "road", "car"))
    with pytest.raises(ValueError, match=r"does not know 'tree' .* its own are 'sky', 'road', 'car'"):
        evaluate_segmentation(named, Pairs([], 3, names=("sky", "tree", "road")))
    with pytest.raises(ValueError, match="batch_size"):
        evaluate_segmentation(named, Pairs([], 3), batch_size=0)


def test_classes_are_matched_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """The model answers each pixel with the value that it shows: 0 sky, 1 road, 2 car."""
    shown = np.array([[0, 1, 2, 2]], dtype=np.uint8)
    named = Reading(3, class_names=("sky", "road", "car"))
    other_order = Pairs([(np.array([[2, 0, 1, 255]], np.uint8), shown)], 3, names=("Road", "car ", "sky"))
    report = evaluate_segmentation(named, other_order)
    assert report.miou == 1.0 and [row["name"] for row in report.per_class()] == ["Road", "car ", "sky"]
    assert [row["pixels"] for row in report.per_class()] == [1, 1, 1] and not caplog.records

    without_road = Pairs([(np.array([[1, 1, 0, 0]], np.uint8), shown)], 2, names=("car", "sky"))
    report = evaluate_segmentation(named, without_road)
    assert report.confusion.counts.tolist() == [[2, 0, 0], [0, 1, 1]]
    assert report.miou == 0.75, "the mean of car (1.0) and sky (0.5); road is not among them"
    assert report.absent_classes == ("road",) and report.to_dict()["absent_classes"] == ["road"]
    assert "lacks 1 of the 3 classes of the model ('road')" in caplog.text


def test_digits_as_names_of_segmentors() -> None:
    shown = np.array([[0, 1, 2]], dtype=np.uint8)
    digits = Reading(3, class_names=("1", "2", "0"))  # the value 0 is answered with the class "1"
    data = Pairs([(np.array([[1, 2, 0]], np.uint8), shown)], 3, names=("0", "1", "2"))
    assert evaluate_segmentation(digits, data).miou == 1.0


def test_the_worst_are_drawn_in_one_numbering(tmp_path: Path) -> None:
    shown = np.array([[0, 1, 2, 2]] * 4, dtype=np.uint8)
    colors = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    model = Reading(3, class_names=("sky", "road", "car"), palette=colors)
    data = Pairs([(np.array([[1, 1, 0, 0]] * 4, np.uint8), shown)], 2, names=("car", "sky"))
    [file] = save_worst(evaluate_segmentation(model, data), model, data, tmp_path)
    drawn = np.asarray(PIL.Image.open(file))[28:]
    assert drawn[0, 12:16].tolist() == [list(colors[0])] * 2 + [list(colors[2])] * 2, "the ground truth"
    assert drawn[0, 24:28].tolist() == [list(colors[0]), [128] * 3, list(colors[2]), list(colors[2])], "the answer"


def test_folders_and_answers(tmp_path: Path) -> None:
    for folder in ("val", "labels/val"):
        (tmp_path / folder).mkdir(parents=True)
    PIL.Image.new("RGB", (8, 6), (1, 1, 1)).save(tmp_path / "val" / "a.png")
    PIL.Image.new("L", (8, 6), 1).save(tmp_path / "labels/val" / "a.png")
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    answers: dict[str, Segmentation] = {}
    report = evaluate_segmentation(Reading(2).train(), tmp_path, on_prediction=answers.__setitem__)
    assert report.miou == 1.0 and report.class_names == ("no", "yes")
    [(name, answer)] = answers.items()
    assert name.endswith("a.png") and int(answer.label_map.min()) == 1


class Filtering(Segmentor):
    """Answers with the strongest of four filters, at stride 4."""

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> Tensor:
        weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.conv2d(pixels, weight, stride=4, padding=2)


def build(**changes: Any) -> Segmentor:
    preprocess = SegmentationPreprocess(scale=(80, 40), **changes)
    return Filtering(SegmentorConfig(BACKBONE, 4, SegFormerConfig(channels=8), preprocess))


@pytest.mark.parametrize("window", [None, SlidingWindow((32, 32), (24, 24))])
def test_several_views_are_averaged(window: SlidingWindow | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of a few rows give what whole volumes of probabilities give."""
    monkeypatch.setattr("internimage.segmentation.postprocess.STRIP_BYTES", {"cpu": 2**12})
    model, ratios = build(multiple=8, window=window), (0.5, 1.0, 1.75)
    image = np.random.default_rng(1).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    total = torch.zeros(4, 37, 61)
    for ratio in ratios:
        config = dataclasses.replace(model.config.preprocess, scale=(int(80 * ratio), int(40 * ratio)))
        images = model.preprocess([image], config)
        for turned in (False, True):
            pixels = images.pixels.flip(3) if turned else images.pixels
            with torch.inference_mode():
                [scores] = model.run(dataclasses.replace(images, pixels=pixels), preprocess=config)
                volume = torch.cat(list(scores.strips()), dim=1).softmax(dim=0)
            total += volume.flip(2) if turned else volume
    [answer] = predict_multi_scale(model, [image], SegmentationTTA(ratios))
    agreement = (answer.label_map == total.argmax(dim=0)).float().mean()
    assert agreement > 0.999 and answer.label_map.unique().numel() == 4


def test_one_plain_view_is_predict() -> None:
    model = build()
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    once = SegmentationTTA((1.0,), flip=False)
    for config in (None, SegmentationPreprocess(scale=None)):
        [answer] = predict_multi_scale(model, [image], once, preprocess=config)
        [plain] = model.predict([image], preprocess=config)
        assert torch.equal(answer.label_map, plain.label_map)
    [larger] = predict_multi_scale(
        model, [image], SegmentationTTA((1.5,)), preprocess=SegmentationPreprocess(scale=None)
    )
    assert larger.original_hw == (50, 70)
    with pytest.raises(ValueError, match="positive"):
        SegmentationTTA(())


def test_published_figures_and_scales() -> None:
    entry = info("mask2former_internimage_h_896_80k_cocostuff2ade20k")
    assert published_metrics(entry) == {"mIoU": 0.626} and published_metrics(entry, tta=True) == {"mIoU": 0.629}
    assert published_miou(entry) == 0.626 and published_miou(entry, multi_scale=True) == 0.629
    assert [int(3584 * ratio) for ratio in published_scales(entry).ratios] == [3072, 3328, 3584, 3840, 4096]
    assert [int(896 * ratio) for ratio in published_scales(entry).ratios] == [768, 832, 896, 960, 1024]
    assert published_scales(info("mask2former_internimage_h_480_40k_nyu")) == SegmentationTTA(PUBLISHED_RATIOS)
    unknown = info("upernet_internimage_l_512x1024_80k_mapillary")
    assert published_metrics(unknown) == {} and published_miou(unknown) is None


def test_worst_images_are_drawn(tmp_path: Path) -> None:
    model, dataset = Reading(3, palette=((200, 0, 0), (0, 200, 0), (0, 0, 200))), small()
    report = evaluate_segmentation(model, dataset)
    files = save_worst(report, model, dataset, tmp_path, count=2)
    assert [path.name for path in files] == [
        f"{i:02d}_{score.name}" for i, score in enumerate(report.worst(2), start=1)
    ]
    drawn = np.asarray(PIL.Image.open(files[0]))
    target = dataset.pairs[report.worst(1)[0].index][0]
    assert drawn.shape == (6 + 28, 3 * 8 + 2 * 8, 3)
    np.testing.assert_array_equal(drawn[28:, 16:24].argmax(axis=2), target)
    with pytest.raises(ValueError, match="size of the image"):
        compare(PIL.Image.new("RGB", (4, 4)), target, target, ((0, 0, 0),))


def test_submissions(tmp_path: Path) -> None:
    streets = Segmentation(torch.tensor([[0, 5, 18]], dtype=torch.uint8), 19)
    path = save_submission(streets, "val/bonn/bonn_000001_leftImg8bit.png", tmp_path, benchmark="cityscapes")
    assert path.name == "bonn_000001_leftImg8bit.png" and np.asarray(PIL.Image.open(path)).tolist() == [[7, 17, 33]]
    rooms = Segmentation(torch.tensor([[0, 149]], dtype=torch.uint8), 150)
    path = save_submission(rooms, "ADE_test_1.jpg", tmp_path / "ade", benchmark="ade20k")
    assert path.name == "ADE_test_1.png" and np.asarray(PIL.Image.open(path)).tolist() == [[1, 150]]
    with pytest.raises(ValueError, match="cityscapes has 19 classes, but the prediction has 150"):
        submission_image(rooms, "cityscapes")
    names = label_set("cityscapes_19").class_names
    turned = Segmentation(torch.tensor([[0, 18]], dtype=torch.uint8), 19, class_names=names[::-1])
    assert np.asarray(submission_image(turned, "cityscapes")).tolist() == [[33, 7]]
    foreign = Segmentation(torch.tensor([[0]], dtype=torch.uint8), 19, class_names=("lawn", *names[1:]))
    with pytest.raises(ValueError, match="cityscapes has no classes 'lawn'"):
        submission_image(foreign, "cityscapes")
    with pytest.raises(ValueError, match="benchmark must be one of"):
        submission_image(rooms, "coco")  # type: ignore[arg-type]


def test_reports_without_labels_have_no_figures() -> None:
    report = SegmentationReport(PixelConfusion.empty(2), ("a", "b"), ())
    assert report.rows() == [("mIoU", None, None), ("mAcc", None, None), ("aAcc", None, None)]
    assert report.per_class()[0] == {"name": "a", "iou": None, "accuracy": None, "pixels": 0}


def test_ground_truth_of_one_class_is_said(caplog: pytest.LogCaptureFixture) -> None:
    binary = np.array([[0, 0, 255, 255]])
    report = evaluate_segmentation(Reading(2), Pairs([(binary, np.array([[0, 0, 1, 1]]))], 2))
    assert (
        report.miou == 1 and "all labeled pixels are of the class 'class 0', of 'class 1' there are none" in caplog.text
    )
    caplog.clear()
    evaluate_segmentation(Reading(2), Pairs([(binary // 255, binary // 255)], 2))
    evaluate_segmentation(Reading(1), Pairs([(binary, binary * 0)], 1))
    assert not caplog.text
