from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from internimage.backbones import variant
from internimage.classification.evaluate import evaluate_classification
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.preprocess import ClassificationPreprocess, Observation, encode_observation
from internimage.data import Sample
from internimage.data.labels import label_set
from internimage.evaluation.classes import known_classes

RECORDED = np.load(Path(__file__).parents[1] / "parity" / "data" / "training" / "classification_training.npz")
LOGITS, TARGETS = RECORDED["acc.logits"], RECORDED["acc.targets"]


class Numbered:
    """A data set whose image `i` is the gray value `i`; some images are broken."""

    def __init__(self, targets: np.ndarray, num_classes: int, broken: tuple[int, ...] = ()) -> None:
        self.targets, self.num_classes, self.broken = targets, num_classes, broken

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(self.num_classes))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample[int]:
        if index in self.broken:
            raise ValueError(f"{index}.png is broken")
        return Sample(PIL.Image.new("RGB", (4, 4), (index,) * 3), int(self.targets[index]), f"{index}.png")


class Recited(Classifier):
    """Answers image `i` with the recorded logits of row `i`."""

    def __init__(self, logits: np.ndarray) -> None:
        preprocess = ClassificationPreprocess(size=4, mean=(0, 0, 0), std=(1 / 255,) * 3)
        super().__init__(ClassifierConfig(variant("internimage_pico"), logits.shape[1], preprocess=preprocess))
        self.logits = torch.from_numpy(logits)

    def forward(self, pixels: Tensor, valid_hw: Any = None, metadata: Any = None) -> Tensor:
        assert not self.training
        return self.logits[pixels[:, 0, 0, 0].round().long()]


def test_every_image_counts_once() -> None:
    """The original counted the images that its sampler repeats; the exact figures were recorded beside."""
    calls: list[tuple[int, int]] = []
    report = evaluate_classification(
        Recited(LOGITS), Numbered(TARGETS, 20), batch_size=4, progress=lambda done, total: calls.append((done, total))
    )
    assert report.num_images == 27
    assert 100 * report.top1 == pytest.approx(40.74074, abs=1e-4)
    assert 100 * report.top5 == pytest.approx(59.25926, abs=1e-4)
    assert report.loss == pytest.approx(2.31660, abs=1e-5)
    assert calls[0] == (4, 27) and calls[-1] == (27, 27)


def test_confusion_and_classes() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    report = evaluate_classification(Recited(logits), Numbered(np.array([0, 1, 0, 0]), 3), published={"top1": 0.9})
    assert report.confusion.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert report.per_class()[0] == {"name": "class 0", "images": 3, "correct": 1, "accuracy": 1 / 3}
    assert report.per_class()[2]["accuracy"] is None
    summary = json.loads(json.dumps(report.to_dict()))
    assert summary["top1"] == 0.5 and summary["published_top1"] == 0.9 and summary["top5"] == 1.0


def test_broken_images_are_left_out_and_listed() -> None:
    dataset = Numbered(TARGETS, 20, broken=(0, 1, 2, 3, 5))
    report = evaluate_classification(Recited(LOGITS), dataset, batch_size=4)
    assert report.num_images == 22
    assert report.skipped[-1] == (5, "5.png is broken")
    kept = [i for i in range(27) if i not in dataset.broken]
    assert report.top1 == (LOGITS[kept].argmax(1) == TARGETS[kept]).mean()
    with pytest.raises(ValueError, match=r"more than 2 .*\n.*0.png is broken"):
        evaluate_classification(Recited(LOGITS), dataset, batch_size=4, max_unreadable=2)


def test_workers_give_the_same_numbers() -> None:
    report = evaluate_classification(Recited(LOGITS), Numbered(TARGETS, 20), batch_size=4, workers=1)
    assert 100 * report.top1 == pytest.approx(40.74074, abs=1e-4)


def test_other_numbers_of_classes() -> None:
    with pytest.raises(ValueError, match="answers with 20 classes but the data set has 19"):
        evaluate_classification(Recited(LOGITS), Numbered(TARGETS % 19, 19))
    with pytest.raises(ValueError, match="batch_size"):
        evaluate_classification(Recited(LOGITS), Numbered(TARGETS, 20), batch_size=0)
    known = known_classes(None, 21841, [str(i) for i in range(1000)])
    assert known.outputs[:3].tolist() == [359, 368, 460] and len(known.outputs) == 1000 and not known.absent


FRUIT = ("apple", "pear", "plum")
ANSWERS = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]  # apple, pear, plum, plum


class Named(Numbered):
    """The same images under other names."""

    def __init__(self, targets: list[int], names: tuple[str, ...]) -> None:
        super().__init__(np.array(targets), len(names))
        self.names = names

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.names


def named(*names: str) -> Recited:
    model = Recited(ANSWERS)
    model.config = replace(model.config, class_names=names)
    return model


@pytest.mark.parametrize(
    ("own", "names", "targets"),
    [
        (FRUIT, ("plum", "Apple", "PEAR"), [1, 2, 0, 0]),
        (("1", "2", "0"), ("0", "1", "2"), [1, 2, 0, 0]),
        (("class 2", "class 0", "class 1"), ("class 0", "class 1", "class 2"), [2, 0, 1, 1]),
    ],
)
def test_classes_are_matched_by_name(own: tuple[str, ...], names: tuple[str, ...], targets: list[int]) -> None:
    report = evaluate_classification(named(*own), Named(targets, names))
    assert report.top1 == 1.0 and report.class_names == names and report.confusion.shape == (3, 3)


def test_classes_that_the_data_lack(caplog: pytest.LogCaptureFixture) -> None:
    report = evaluate_classification(named(*FRUIT), Named([0, 0, 1, 1], ("apple", "plum")))
    assert report.top1 == 0.75 and report.confusion.tolist() == [[1, 0, 1], [0, 2, 0]]
    assert [(row["name"], row["correct"], row["images"]) for row in report.per_class()] == [
        ("apple", 1, 2),
        ("plum", 2, 2),
    ]
    assert report.absent_classes == ("pear",) and report.to_dict()["absent_classes"] == ["pear"]
    assert "lacks 1 of the 3 classes of the model ('pear')" in caplog.text
    assert report.loss == pytest.approx(float(np.mean([np.log(np.e + 2) - 1] * 3 + [np.log(np.e + 2)])))


def test_classes_that_the_model_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"does not know 'quince' .* its own are 'apple', 'pear', 'plum'"):
        evaluate_classification(named(*FRUIT), Named([0, 1, 2, 2], ("pear", "plum", "quince")))


def test_mere_numbers_are_taken_by_number(caplog: pytest.LogCaptureFixture) -> None:
    report = evaluate_classification(named(*FRUIT), Named([2, 1, 0, 0], ("2", "1", "0")))
    assert report.top1 == 1.0 and "they are taken by number" in caplog.text


def test_small_parts_of_imagenet() -> None:
    logits = np.zeros((2, 1000), dtype=np.float32)
    logits[0, 574], logits[1, 0] = 9, 9  # golf ball, tench
    model = Recited(logits)
    model.config = replace(model.config, class_names=label_set("imagenet_1k").class_names)
    report = evaluate_classification(model, Named([1, 0], ("n01440764", "n03445777")))
    assert report.top1 == 1.0 and report.confusion.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert len(report.absent_classes) == 998


def test_the_mode_is_restored() -> None:
    model = Recited(LOGITS).train()
    evaluate_classification(model, Numbered(TARGETS, 20))
    assert model.training


def test_a_cut_evaluation_goes_on(tmp_path: Path) -> None:
    model, data = Recited(LOGITS), Numbered(TARGETS, 20, broken=(1,))
    whole = evaluate_classification(model, data, batch_size=4)

    def cut(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_classification(model, data, batch_size=4, folder=tmp_path, progress=cut)
    seen: list[int] = []
    report = evaluate_classification(
        model, data, batch_size=4, folder=tmp_path, progress=lambda done, total: seen.append(done)
    )
    assert seen[0] == 15, "the broken image is tried again, with three new ones"
    assert report.to_dict() == whole.to_dict(), "to the last bit"
    with pytest.raises(ValueError, match="holds classification progress with another model;"):
        evaluate_classification(Recited(LOGITS), data, folder=tmp_path)
    changed = Numbered((TARGETS + 1) % 20, 20)
    again = evaluate_classification(model, changed, folder=tmp_path)
    assert again.to_dict() == evaluate_classification(model, changed).to_dict(), "scores hold the ground truth"


class Observed(Numbered):
    """Knows when and where every other image was taken."""

    def __getitem__(self, index: int) -> Sample[int]:
        place = Observation(datetime.date(2018, 1 + index, 1), 10.0 * index, 5.0) if index % 2 else None
        return replace(super().__getitem__(index), observation=place)


def test_date_and_place_reach_the_model() -> None:
    class Noting(Recited):
        takes_metadata = True  # pyright: ignore[reportAssignmentType]  # a property of the class

        def forward(self, pixels: Tensor, valid_hw: Any = None, metadata: Any = None) -> Tensor:
            seen.append(metadata)
            return super().forward(pixels, valid_hw, metadata)

    seen: list[Tensor] = []
    dataset = Observed(np.arange(5) % 3, 3)
    evaluate_classification(Noting(LOGITS[:, :3]), dataset, batch_size=2)
    assert torch.equal(torch.cat(seen), encode_observation([dataset[i].observation for i in range(5)]))
