from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data.label_maps.label_map import mapped_values, plain_values, read_label_map, zero_is_nothing
from internimage.data.label_maps.layouts import cityscapes_values, coco_stuff_values, mapillary_values

VALUES = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "I"])
def test_stored_numbers_count(mode: str, tmp_path: Path) -> None:
    """The palette is for viewers, and the width of the numbers does not matter."""
    image = PIL.Image.fromarray(VALUES)
    if mode == "P":
        image.putpalette([255, 0, 0, 0, 255, 0] * 128)
    elif mode != "L":
        image = PIL.Image.fromarray(VALUES.astype(np.uint16 if mode == "I;16" else np.int32))
    path = tmp_path / ("mask.tif" if mode == "I" else "mask.png")
    image.save(path)
    label_map = read_label_map(path, plain_values(3))
    assert label_map.dtype == np.uint8 and label_map.tolist() == VALUES.tolist()


def test_one_bit_masks(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([[True, False]])).save(tmp_path / "mask.png")
    assert read_label_map(tmp_path / "mask.png", plain_values(2)).tolist() == [[1, 0]]


def test_values_of_the_published_data_sets() -> None:
    assert zero_is_nothing(150).table[149:152] == (148, 149, -1) and zero_is_nothing(150).table[255] == 255
    assert zero_is_nothing(150).allowed == "0..150, 255"
    streets = cityscapes_values().table
    assert [streets[i] for i in (0, 7, 8, 19, 26, 29, 33, 34, 255)] == [255, 0, 1, 6, 13, 255, 18, -1, 255]
    assert sum(0 <= label < 19 for label in streets) == 19
    mapillary = mapillary_values().table
    assert [mapillary[i] for i in (13, 24, 41, 15, 22, 55, 52, 0, 65, 66)] == [0, 0, 0, 1, 12, 13, 18, 255, 255, -1]
    assert {label for label in mapillary if label >= 0} == {*range(19), 255}
    stuff = coco_stuff_values().table
    assert [stuff[i] for i in (0, 10, 11, 12, 89, 90, 91, 181, 182)] == [0, 10, -1, 11, 79, -1, 80, 170, -1]


def test_wrong_values_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    PIL.Image.fromarray(VALUES).save(path)
    with pytest.raises(
        ValueError, match=r"mask\.png: .* value 2 \(first at row 0, column 2; 2 of 6 .*allowed are 0\.\.1, 255"
    ):
        read_label_map(path, plain_values(2))
    PIL.Image.fromarray(np.array([[1, 1000]], dtype=np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"value 1000 \(first at row 0, column 1"):
        read_label_map(path, plain_values(2))
    path.write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"mask\.png"):
        read_label_map(path, plain_values(2))
    with pytest.raises(ValueError, match="no such file"):
        read_label_map(tmp_path / "other.png", plain_values(2))
    for number in (0, 256):
        with pytest.raises(ValueError, match=r"1\.\.255 classes"):
            plain_values(number)


def test_colored_masks(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    red, green, black = (255, 0, 0), (0, 255, 0), (0, 0, 0)
    PIL.Image.fromarray(np.array([[red, green, black]], dtype=np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"mask\.png: the mask is a colored image [^.]*`palette`"):
        read_label_map(path, plain_values(2))
    with pytest.raises(ValueError, match=r"color \(0, 0, 0\) \(first at row 0, column 2; 1 of 3"):
        read_label_map(path, plain_values(2, palette=(red, green)))
    values = plain_values(2, palette=(red, green), ignored_colors=(black,))
    assert read_label_map(path, values).tolist() == [[0, 1, 255]]
    PIL.Image.new("LA", (2, 2)).save(path)
    with pytest.raises(ValueError, match="mode LA"):
        read_label_map(path, values)


def test_own_mapping(tmp_path: Path) -> None:
    PIL.Image.fromarray(VALUES).save(tmp_path / "mask.png")
    assert read_label_map(tmp_path / "mask.png", mapped_values({0: 4, 1: 255, 2: 4})).max() == 255
