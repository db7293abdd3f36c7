from __future__ import annotations

import numpy as np
import pytest
import torch

from internimage.data.images.resize import keep_ratio_size, resize_bilinear
from internimage.segmentation import SegmentationPreprocess, SlidingWindow
from internimage.segmentation.preprocess import prepare


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)


@pytest.mark.parametrize(("old", "new"), [((7, 9), (20, 31)), ((40, 30), (11, 13)), ((5, 5), (5, 8)), ((1, 1), (3, 4))])
def test_resize_is_bilinear_to_a_gray_level(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = noise(*old)
    exact = torch.nn.functional.interpolate(
        image.permute(2, 0, 1)[None].double(), size=new, mode="bilinear", align_corners=False
    )
    assert (resize_bilinear(image, new).permute(2, 0, 1) - exact[0]).abs().max() < 1


def test_halving_averages_blocks_of_four() -> None:
    image = noise(8, 6)
    blocks = image.long().unflatten(0, (4, 2)).unflatten(2, (3, 2)).sum(dim=(1, 3))
    assert torch.equal(resize_bilinear(image, (4, 3)).long(), (blocks + 2) // 4)


def test_equal_size_is_no_work_and_bad_images_are_refused() -> None:
    image = noise(4, 5)
    assert resize_bilinear(image, (4, 5)) is image
    with pytest.raises(ValueError, match="uint8"):
        resize_bilinear(image.float(), (2, 2))
    with pytest.raises(ValueError, match="at least 1"):
        resize_bilinear(image, (0, 2))


def test_sizes() -> None:
    assert keep_ratio_size((907, 1211), (512, 2048)) == (512, 684)
    assert keep_ratio_size((1, 10_000), (2048, 512)) == (1, 2048)
    config = SegmentationPreprocess(scale=(2048, 512), multiple=32)
    assert config.input_size((907, 1211)) == (512, 704)
    assert SegmentationPreprocess(scale=None).input_size((11, 13)) == (11, 13)


def test_windows_cover_every_pixel_and_stay_inside() -> None:
    for hw in ((96, 128), (64, 64), (30, 200), (65, 66)):
        window = SlidingWindow((64, 64), (40, 48))
        seen = torch.zeros(hw)
        for top, left in window.corners(hw):
            assert top >= 0 and left >= 0
            assert top + min(64, hw[0]) <= hw[0] and left + min(64, hw[1]) <= hw[1]
            seen[top : top + 64, left : left + 64] += 1
        assert seen.min() >= 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SlidingWindow((64, 64), (0, 32)),
        lambda: SlidingWindow((64, 64), (32, 65)),
        lambda: SegmentationPreprocess(scale=(0, 4)),
        lambda: SegmentationPreprocess(multiple=0),
        lambda: SegmentationPreprocess(std=(0.0, 1.0, 1.0)),
    ],
)
def test_impossible_settings_are_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match="given"):
        wrong()


def test_a_batch_holds_each_image_unchanged() -> None:
    config = SegmentationPreprocess(scale=(64, 48), multiple=8)
    images = [noise(30, 50).numpy(), noise(60, 40).numpy()]
    batch = prepare(images, config)
    assert batch.original_hw == ((30, 50), (60, 40))
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    for i, image in enumerate(images):
        alone = prepare([image], config)
        height, width = alone.valid_hw[0].tolist()
        assert batch.valid_hw[i].tolist() == [height, width] == list(config.input_size(image.shape[:2]))
        assert torch.equal(batch.pixels[i, :, :height, :width], alone.pixels[0])
    assert prepare([], config).pixels.shape[0] == 0


def test_statistics() -> None:
    image = np.full((4, 4, 3), (124, 116, 104), dtype=np.uint8)
    pixels = prepare([image], SegmentationPreprocess(scale=None)).pixels
    expected = (torch.tensor([124.0, 116.0, 104.0]) - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor(
        [58.395, 57.12, 57.375]
    )
    torch.testing.assert_close(pixels[0, :, 0, 0], expected)
