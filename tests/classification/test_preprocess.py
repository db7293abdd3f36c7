from __future__ import annotations

import datetime
import math
from pathlib import Path

import numpy as np
import PIL
import PIL.Image
import pytest
import torch
from torchvision.transforms import v2

from internimage.classification.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ClassificationPreprocess,
    Observation,
    _resize_center,
    encode_observation,
    fit,
    prepare,
)
from internimage.data.images.read import BadImage
from tests.parity import seeding

PARITY = Path(__file__).parent.parent / "parity" / "data"
RNG = np.random.default_rng(0)


def noise(height: int, width: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_recorded_numbers_of_the_original() -> None:
    with np.load(PARITY / "training" / "classification_eval.npz") as recorded:
        tags = [name.removesuffix(".uint8_sum") for name in recorded.files if name.endswith(".uint8_sum")]
        assert len(tags) == 16
        for tag in tags:
            photo, size, crop = tag.split(".")
            seed, shape = photo.split("_")
            height, width = map(int, shape.split("x"))
            image = PIL.Image.fromarray(seeding.photo(int(seed), height, width))
            found = np.asarray(fit(image, ClassificationPreprocess(int(size), crop=crop == "crop")))
            index = seeding.summary(found, 2048)["index"]
            difference = found.reshape(-1)[index].astype(int) - recorded[f"{tag}.uint8_value"]
            # Recorded with Pillow 13; older ones take the two passes of a resize in another order.
            if int(PIL.__version__.split(".")[0]) >= 13:
                assert not difference.any(), tag
                assert found.sum(dtype=np.int64) == recorded[f"{tag}.uint8_sum"], tag
            assert abs(difference).max() <= 1, tag


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("hw", [(1, 1), (3, 5), (224, 225), (301, 199), (17, 400), (620, 20)])
@pytest.mark.parametrize("size", [32, 97])
def test_equal_to_torchvision(hw: tuple[int, int], size: int, interpolation: str) -> None:
    image = noise(*hw)
    mode = v2.InterpolationMode(interpolation)
    tail = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    for crop in (True, False):
        head = [v2.Resize(size, mode), v2.CenterCrop(size)] if crop else [v2.Resize((size, size), mode)]
        expected = v2.Compose(head + tail)(image)
        batch = prepare([image], ClassificationPreprocess(size, crop=crop, interpolation=interpolation))
        torch.testing.assert_close(batch.pixels[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("hw", [(17, 1200), (900, 20), (40, 1400), (1, 300), (300, 2)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_thin_images_equal_the_whole_resize(hw: tuple[int, int], interpolation: str) -> None:
    image = noise(*hw)
    mode = v2.InterpolationMode(interpolation)
    expected = np.asarray(v2.Compose([v2.Resize(32, mode), v2.CenterCrop(32)])(image))
    for found in (
        fit(image, ClassificationPreprocess(32, interpolation=interpolation)),
        _resize_center(image, 32, PIL.Image.Resampling[interpolation.upper()]),
    ):
        assert np.abs(np.asarray(found).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("hw", [(1, 20_000), (20_000, 1), (2, 1_000_000), (1_000_000, 2)])
@pytest.mark.parametrize("crop", [True, False])
def test_extreme_shapes_stay_small(hw: tuple[int, int], crop: bool) -> None:
    ramp = np.linspace(0, 255, max(hw)).astype(np.uint8)
    image = PIL.Image.fromarray(np.broadcast_to(ramp[:, None] if hw[0] > hw[1] else ramp, hw).copy())
    resized: list[tuple[int, int]] = []
    original = PIL.Image.Image.resize

    def watch(self: PIL.Image.Image, size: tuple[int, int], *args: object, **kwargs: object) -> PIL.Image.Image:
        resized.append((self.width, size[0]) if hw[0] < hw[1] else (self.height, size[1]))
        return original(self, size, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PIL.Image.Image, "resize", watch)
        batch = prepare([image], ClassificationPreprocess(224, crop=crop))
    assert batch.original_hw == (hw,)
    assert all(after <= 224 for _, after in resized)
    middle = batch.pixels[0].permute(1, 2, 0)[112, 112] * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    torch.testing.assert_close(middle, torch.full((3,), 0.5), rtol=0, atol=0.02)


def test_a_batch_keeps_order_sizes_and_layout() -> None:
    batch = prepare([noise(10, 20), np.zeros((7, 5), dtype=np.uint8)], ClassificationPreprocess(16))
    assert len(batch) == 2
    assert batch.pixels.shape == (2, 3, 16, 16)
    assert batch.pixels.dtype == torch.float32
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.valid_hw.tolist() == [[16, 16], [16, 16]]
    assert batch.original_hw == ((10, 20), (7, 5))
    assert batch.metadata is None
    black = -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(batch.pixels[1, :, 3, 4], black)
    empty = prepare([], ClassificationPreprocess(16))
    assert empty.pixels.shape == (0, 3, 16, 16) and empty.valid_hw.shape == (0, 2)


def test_nothing_is_left_unwritten(poisoned_empty: None) -> None:
    assert prepare([noise(5, 5)], ClassificationPreprocess(8)).pixels.isfinite().all()


def test_orientation_counts_for_the_original_size(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    noise(10, 20).save(tmp_path / "turned.jpg", exif=exif)
    assert prepare([tmp_path / "turned.jpg"], ClassificationPreprocess(8)).original_hw == ((20, 10),)


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"nowhere\.png"):
        prepare([noise(4, 4), tmp_path / "nowhere.png"], ClassificationPreprocess(8))


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"interpolation": "nearest"}, {"std": (0.2, 0.0, 0.2)}], ids=lambda wrong: next(iter(wrong))
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClassificationPreprocess(**wrong)


# --- date and place -------------------------------------------------------------------------------


def test_observations_are_encoded_as_published() -> None:
    rows = encode_observation(
        [
            Observation(datetime.date(2018, 3, 31), latitude=30.0, longitude=60.0),
            Observation(datetime.datetime(2018, 12, 1, 15, 30)),
            Observation(latitude=-90.0, longitude=180.0),
            None,
        ]
    )
    root = math.sqrt(3.0)
    expected = [
        [1.0, 0.0, 0.0, 0.0, root / 4, 0.75, 0.5],
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0],
        [0.0] * 7,
    ]
    torch.testing.assert_close(rows, torch.tensor(expected), rtol=0, atol=1e-6)
    assert encode_observation([]).shape == (0, 7)


def test_zero_degrees_is_a_place() -> None:
    equator = encode_observation([Observation(latitude=0.0, longitude=90.0), Observation(latitude=45.0, longitude=0.0)])
    torch.testing.assert_close(equator[:, 4:].norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(90.5, 0.0), (0.0, -181.0), (math.nan, 0.0), (1.0, None), (None, 1.0)]
)
def test_wrong_places(latitude: float | None, longitude: float | None) -> None:
    with pytest.raises(ValueError, match="itude"):
        Observation(latitude=latitude, longitude=longitude)
