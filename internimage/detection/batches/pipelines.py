"""The published training pipelines of detectors, and one for own data.

Source: OpenGVLab/InternImage 31c962d, detection/configs.
"""

from __future__ import annotations

from internimage.detection.batches.augment import Crop, CropFraction, Flip, OneOf, Pipeline, Resize, ResizeRange

_SIDES = tuple(range(480, 801, 32))


def _multi_scale(*, crop_longer_side: int, allow_empty: bool) -> Pipeline:
    """Resize to one of eleven scales, or resize, crop and then resize so."""
    final = Resize(_SIDES, 1333)
    first = Resize((400, 500, 600), crop_longer_side)
    return (Flip(), OneOf(((final,), (first, Crop(384, 600, allow_empty), final))))


# "1x", "3x": Mask and Cascade R-CNN (CrowdHuman uses "3x"). "dino_1x": DINO with T and L backbones. "large_...": the
# large DINO detectors, 1800 for COCO and Objects365, 1200 for LVIS and OpenImages. "voc": what the published VOC
# detectors were really trained with: their 1200-pixel pipeline was configured where it had no effect.
PIPELINES: dict[str, Pipeline] = {
    "1x": (Resize((800,), 1333), Flip()),
    "3x": _multi_scale(crop_longer_side=1333, allow_empty=True),
    "dino_1x": _multi_scale(crop_longer_side=4200, allow_empty=False),
    "large_1800": (Flip(), ResizeRange((600, 1800), (2000, 2000))),
    "large_1200": (Flip(), ResizeRange((600, 1200), (2000, 2000))),
    "voc": (Resize((600,), 1000), Flip()),
}


def own_data_pipeline(
    *, shorter_side: tuple[int, int], longer_side: int, smallest_crop: float = 1.0, flip: float = 0.5
) -> Pipeline:
    """Return a pipeline for data sets of any size: crop, flip, resize.

    Args:
        shorter_side: smallest and largest limit of the shorter side in pixels; equal ones for a fixed size.
        longer_side: limit of the longer side in pixels.
        smallest_crop: smallest fraction of the height and of the width that is kept, 0..1; 1 for no crops.
        flip: how often the image is mirrored, 0..1; 0 where left and right differ.

    Raises:
        ValueError: a limit is out of range.
    """
    low, high = shorter_side
    if not 1 <= low <= high <= longer_side:
        raise ValueError(
            f"expected 1 <= shorter_side[0] <= shorter_side[1] <= longer_side, given {shorter_side} and {longer_side}"
        )
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must lie in 0..1, given {flip}")
    crop = () if smallest_crop == 1.0 else (CropFraction(smallest_crop),)
    resize = Resize((low,), longer_side) if low == high else ResizeRange((low, high), (longer_side, longer_side))
    return (*crop, Flip(flip), resize)


def largest_sides(pipeline: Pipeline) -> tuple[int, int]:
    """Return shorter and longer side of the largest images that leave a pipeline, in pixels.

    Example:
        >>> largest_sides(PIPELINES["3x"])
        (800, 1333)
    """
    sides = (0, 0)
    for step in pipeline:
        if isinstance(step, Resize):
            sides = (max(step.shorter_sides), step.longer_side)
        elif isinstance(step, ResizeRange):
            sides = (step.shorter_side[1], step.longer_side[1])
        elif isinstance(step, OneOf):
            sides = max(map(largest_sides, step.choices))
    return sides
