"""What `predict` answers, as areas, as a file and as a drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.types import Segmentation
from internimage.visualize import draw

NAMES = ("sky", "road", "tree")
PALETTE = ((10, 20, 250), (250, 0, 0), (0, 200, 0))


def scene(height: int = 60, width: int = 80) -> Segmentation:
    label_map = torch.ones(height, width, dtype=torch.uint8)
    label_map[: height // 4] = 0
    return Segmentation(label_map, 3, NAMES, PALETTE)


def test_areas_and_summary() -> None:
    result = scene()
    assert result.areas() == [("road", 0.75), ("sky", 0.25)]
    assert result.pixel_counts.tolist() == [1200, 3600, 0]
    assert result.to_dict()["classes"][0] == {"label": 1, "name": "road", "pixels": 3600, "share": 0.75}
    nameless = Segmentation(result.label_map, 3)
    assert nameless.areas()[0][0] == "1"


def test_label_map_survives_a_png(tmp_path: Path) -> None:
    result = scene()
    result.to_image().save(tmp_path / "labels.png")
    with PIL.Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.label_map.numpy())
        assert image.convert("RGB").getpixel((0, 0)) == PALETTE[0]
    many = Segmentation(torch.full((2, 3), 299, dtype=torch.int16), 300)
    many.to_image().save(tmp_path / "many.png")
    with PIL.Image.open(tmp_path / "many.png") as image:
        assert (np.asarray(image) == 299).all()


@pytest.mark.parametrize("hw", [(60, 80), (1000, 700), (3000, 40), (1, 1)])
def test_drawing_blends_the_colors_above_a_legend(hw: tuple[int, int]) -> None:
    gray = np.full((*hw, 3), 100, dtype=np.uint8)
    drawn = np.asarray(draw(scene(*hw), gray, longest_side=max(448, *hw)))
    middle = drawn.shape[1] // 2
    assert drawn[0, middle].tolist() == ([55, 60, 175] if hw[0] >= 4 else [175, 50, 50])
    assert ((drawn == PALETTE[1]).all(axis=-1)).sum() > 100  # its bar in the legend


def test_classes_without_colors_get_some() -> None:
    result = Segmentation(scene().label_map, 3)
    drawn = np.asarray(draw(result, np.full((60, 80, 3), 100, dtype=np.uint8), longest_side=448))
    assert drawn[0, 200].tolist() != drawn[300, 200].tolist()


def test_the_background_keeps_the_colors_of_the_image() -> None:
    gray, names = np.full((60, 80, 3), 100, dtype=np.uint8), ("background", *NAMES[1:])
    label_map = torch.zeros(60, 80, dtype=torch.uint8)
    label_map[30:] = 1
    drawn = np.asarray(draw(Segmentation(label_map, 3, names), gray, longest_side=448))
    assert drawn[0, 200].tolist() == [100, 100, 100] != drawn[300, 200].tolist()
    colored = np.asarray(draw(Segmentation(label_map, 3, names, PALETTE), gray))
    assert colored[0, 200].tolist() != [100, 100, 100]


def test_the_image_must_be_the_right_one() -> None:
    with pytest.raises(ValueError, match="given one of"):
        draw(scene(), np.zeros((60, 81, 3), dtype=np.uint8))
