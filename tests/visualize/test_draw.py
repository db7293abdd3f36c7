from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import internimage as ii
from internimage.types import Classification, Detections, Segmentation
from internimage.visualize import ACCENT, PANEL, WRONG, contact_sheet, draw, draw_confusion
from internimage.visualize.tags import place_tags

NAMES = (
    "cat",
    "dog",
    "an animal whose name is far too long for any caption " * 8,
    "Käse",
    "\U0010fffd日本",
    "two\nlines",
)


def answer(*logits: float, names: tuple[str, ...] | None = None) -> Classification:
    return Classification(torch.tensor(logits, dtype=torch.float32).softmax(0), names)


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def count(image: PIL.Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == color).all(axis=-1).sum())


@pytest.mark.parametrize(
    "hw", [(1, 1), (28, 28), (30, 100), (300, 400), (900, 700), (5000, 10), (10, 5000), (3000, 2500)]
)
def test_caption_is_legible_at_every_size(hw: tuple[int, int]) -> None:
    longest = min(2048, max(448, *hw))
    drawn = draw(answer(3.0, 1.0, 0.5, 0.2, 0.1, 0.0, names=NAMES), gray(*hw), longest_side=longest)
    assert drawn.mode == "RGB"
    assert 360 <= drawn.width <= 2048 and drawn.height <= 2 * 2048
    shown = count(drawn, (128, 128, 128))
    scale = min(2048 / max(hw), max(1.0, 400 / max(hw)))
    assert shown >= 0.5 * hw[0] * hw[1] * scale**2  # the image itself, enlarged or reduced
    panel = np.asarray(drawn)[-60:].reshape(-1, 3)
    assert count(drawn, ACCENT) > 100 and (panel == PANEL).all(axis=1).mean() > 0.5


def test_small_images_keep_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    drawn = np.asarray(draw(answer(1.0, 0.0), pixels, longest_side=448))
    np.testing.assert_array_equal(drawn[:448:16, ::16], pixels)
    np.testing.assert_array_equal(drawn[15:448:16, 15::16], pixels)


def test_the_bar_is_as_long_as_the_probability() -> None:
    for score in (0.1, 0.5, 1.0):
        drawn = np.asarray(draw(Classification(torch.tensor([score, 0.0])), gray(500, 500)))
        longest = (drawn == ACCENT).all(axis=-1).sum(axis=1).max()
        assert longest == pytest.approx(score * 460, abs=4)


def test_few_classes_make_a_small_panel_and_the_image_is_left_alone() -> None:
    source = PIL.Image.fromarray(gray(500, 500))
    heights = [draw(answer(*range(k)), source).height for k in (1, 2, 5, 9)]
    assert heights[0] < heights[1] < heights[2] == heights[3]
    assert count(source, (128, 128, 128)) == 500 * 500


def test_draw_takes_what_predict_takes(tmp_path: Path) -> None:
    PIL.Image.fromarray(gray(30, 40)).save(tmp_path / "a.png")
    tensor = torch.from_numpy(gray(30, 40)).permute(2, 0, 1)
    drawn = [np.asarray(draw(answer(1.0, 0.0), source)) for source in (tmp_path / "a.png", gray(30, 40), tensor)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match="no such file"):
        draw(answer(1.0), tmp_path / "b.png")


@pytest.mark.parametrize("result", [None, "cat", [answer(1.0)], torch.ones(3)])
def test_draw_refuses_what_is_no_result(result: object) -> None:
    with pytest.raises(TypeError, match="draw takes a result of predict"):
        draw(result, gray(4, 4))


@pytest.mark.parametrize(("number", "columns"), [(1, None), (7, None), (20, None), (7, 2), (3, 9)])
def test_contact_sheet_layout(number: int, columns: int | None) -> None:
    results, images = [answer(2.0, 0.0, names=("cat", "dog"))] * number, [gray(20, 20)] * number
    sheet = contact_sheet(results, images, columns=columns)
    headed = contact_sheet(results, images, columns=columns, heading="A heading")
    assert headed.width == sheet.width and headed.height > sheet.height
    wide = (sheet.width - 14) // 222
    assert wide == (columns or {1: 1, 7: 4, 20: 5}[number])
    assert count(sheet, WRONG) == 0
    assert count(sheet, (128, 128, 128)) >= number * 180 * 180


def test_contact_sheet_marks_wrong_answers() -> None:
    results = [answer(2.0, 0.0, names=("cat", "dog"))] * 2
    right = contact_sheet(results, [gray(20, 20)] * 2, targets=["cat", "cat"])
    wrong = contact_sheet(results, [gray(20, 20)] * 2, targets=["cat", "dog"])
    with pytest.warns(DeprecationWarning, match="truths of contact_sheet is targets now"):
        old = contact_sheet(results, [gray(20, 20)] * 2, **{"truths": ["cat", "dog"]})  # type: ignore[arg-type]  # the old name
    assert old.tobytes() == wrong.tobytes()
    assert count(right, WRONG) == 0 and count(right, ACCENT) > 0
    assert count(wrong, WRONG) > 100 and count(wrong, ACCENT) > 100
    # Only the second tile differs.
    differs = (np.asarray(right) != np.asarray(wrong)).any(axis=(0, 2)).nonzero()[0]
    assert differs.min() > right.width / 2


def test_wrong_contact_sheets() -> None:
    for results, images, options in (
        ([], [], {}),
        ([answer(1.0)], [], {}),
        ([answer(1.0)], [gray(2, 2)], {"targets": ["cat", "dog"]}),
        ([answer(1.0)], [gray(2, 2)], {"columns": 0}),
    ):
        with pytest.raises(ValueError, match=r"as many results|columns"):
            contact_sheet(results, images, **options)
    with pytest.raises(TypeError, match="Classification"):
        contact_sheet(["cat"], [gray(2, 2)])


def test_confusion_matrix() -> None:
    counts = torch.tensor([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    drawn = np.asarray(draw_confusion(counts, ("cat", "dog", "a class without images")))
    assert drawn.shape[2] == 3
    cells = [
        [tuple(drawn.astype(int)[196 + 56 * row + 6, 180 + 56 * column + 6]) for column in range(3)] for row in range(3)
    ]
    assert cells[0][0] != cells[0][1] != cells[0][2] and cells[0][2] == cells[1][0] == cells[2][2]
    assert sum(cells[1][1]) > sum(cells[0][0])  # all right is brighter than mostly right
    assert draw_confusion(torch.eye(1000, dtype=torch.int64), [str(i) for i in range(1000)]).size == (1048, 1096)


@pytest.mark.parametrize(("shape", "number"), [((3, 2), 2), ((2, 4), 2), ((2, 2), 3), ((0, 0), 0)])
def test_wrong_confusion_matrix(shape: tuple[int, int], number: int) -> None:
    with pytest.raises(ValueError, match="one row per class"):
        draw_confusion(torch.zeros(shape, dtype=torch.int64), ["x"] * number)


# --- sizes and names ------------------------------------------------------------------------------


@pytest.mark.parametrize("hw", [(160, 160), (3000, 2300), (7, 900)])
def test_drawn_images_keep_the_size_and_the_place_of_every_pixel(hw: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    boxes = torch.tensor([[1.0, 1.0, 4.0, 4.0]])
    found = np.asarray(draw(Detections(boxes, torch.tensor([0.1]), torch.tensor([0]), original_hw=hw), pixels))
    np.testing.assert_array_equal(found, pixels)  # the object is below the threshold
    classified = np.asarray(draw(answer(1.0, 0.0), pixels))
    left = (classified.shape[1] - hw[1]) // 2
    np.testing.assert_array_equal(classified[: hw[0], left : left + hw[1]], pixels)
    labels = Segmentation(torch.zeros(hw, dtype=torch.uint8), 1, ("background",))
    segmented = np.asarray(draw(labels, pixels, has_legend=False))
    np.testing.assert_array_equal(segmented, pixels)
    assert max(draw(labels, pixels, has_legend=False, longest_side=320).size) == 320


def test_names_of_neighbors_do_not_cover_one_another() -> None:
    boxes = [(100, 100, 260, 240), (104, 102, 250, 230), (90, 98, 255, 250), (100, 104, 240, 246)]
    places = place_tags(boxes, ["Sandal 78%", "Dress 53%", "T-shirt/top 50%", "Bag 40%"], 14, (400, 300))
    for i, one in enumerate(places):
        assert 0 <= one[0] < one[2] <= 400 and 0 <= one[1] < one[3] <= 300
        for other in places[:i]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert places[0][:2] == (100, 79)  # the best one has the usual place, above its corner


def test_images_of_other_channels_are_shown_by_their_first_ones() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 400, 5), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(draw(answer(1.0, 0.0), pixels))[:40], pixels[..., :3])
    two = np.asarray(draw(answer(1.0, 0.0), pixels[..., :2]))[:40]
    np.testing.assert_array_equal(two, pixels[..., :1].repeat(3, axis=2))


def test_a_task_registers_how_its_own_results_are_drawn() -> None:
    class Caption(str):
        """What a task of another kind may return."""

    @draw.register(Caption)
    def _(result: Caption, image: object, **_: object) -> PIL.Image.Image:
        return PIL.Image.new("RGB", (len(result), 1))

    assert ii.draw(Caption("a cat"), gray(4, 4), longest_side=8).size == (5, 1)
    with pytest.raises(TypeError, match="given str"):
        ii.draw("a cat", gray(4, 4))
