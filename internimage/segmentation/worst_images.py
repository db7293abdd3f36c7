"""The worst images of an evaluation, each beside its ground truth and its prediction.

Shape legend: H W image size in pixels, K classes.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont
from PIL.Image import Image, Resampling

from internimage.data import ImageDataset
from internimage.data.dataset import read_as
from internimage.data.images.raster import to_rgb
from internimage.data.label_maps.label_map import IGNORED
from internimage.evaluation.classes import known_classes
from internimage.files import replacing
from internimage.moved import renamed_keywords
from internimage.segmentation import SegmentationPreprocess, Segmentor
from internimage.segmentation.evaluate import in_data_order
from internimage.segmentation.report import SegmentationReport
from internimage.segmentation.tta import SINGLE_SCALE, predict_multi_scale
from internimage.types import Palette
from internimage.visualize import distinct_color

LONGEST_SIDE = 800  # of each of the three parts, in pixels
GAP, CAPTION = 8, 28
BACKGROUND, TEXT = (17, 22, 29), (241, 245, 249)
OTHER = (128, 128, 128)  # predictions of classes that the data set lacks


def save_worst(
    report: SegmentationReport,
    model: Segmentor,
    data: ImageDataset[np.ndarray],
    folder: str | PathLike[str],
    *,
    count: int = 8,
    preprocess: SegmentationPreprocess | None = None,
) -> list[Path]:
    """Draw the images with the smallest mean intersection over union; the model predicts them once more.

    Model, data and `preprocess` are those of the evaluation. Files are named after their rank and their image.

    Returns:
        The files written, worst first.
    """
    palette = model.config.palette or tuple(distinct_color(i) for i in range(model.config.num_classes))
    known = known_classes(model.config.class_names, model.config.num_classes, data.class_names)
    colors = tuple(palette[output] for output in known.outputs) + (OTHER,) * bool(known.absent)
    files: list[Path] = []
    for rank, score in enumerate(report.worst(count), start=1):
        sample = read_as(data, (preprocess or model.config.preprocess).reading)[score.index]
        [prediction] = predict_multi_scale(model, [sample.image], report.tta or SINGLE_SCALE, preprocess=preprocess)
        title = f"{Path(score.name).name}   mIoU {score.miou:.1%}, right pixels {score.aacc:.1%}"
        label_map = in_data_order(prediction.label_map, known).numpy()
        drawn = compare(to_rgb(sample.image), sample.target, label_map, colors, title=title)
        path = Path(folder) / f"{rank:02d}_{Path(score.name).stem}.png"
        with replacing(path) as temporary:
            drawn.save(temporary, "PNG")
        files.append(path)
    return files


@renamed_keywords(truth="target", answer="prediction")
def compare(image: Image, target: np.ndarray, prediction: np.ndarray, palette: Palette, *, title: str = "") -> Image:
    """Draw an image, its ground truth and its prediction side by side; pixels without a label are black there.

    Args:
        image: RGB image.
        target: (H, W) class of every pixel, 255 where there is none.
        prediction: (H, W) class of every pixel.
        palette: K colors.
        title: text above the image.

    Raises:
        ValueError: the sizes differ.
    """
    if not (image.height, image.width) == target.shape == prediction.shape:
        raise ValueError(
            f"the label maps must have the size of the image, {(image.height, image.width)}, given {target.shape} "
            f"and {prediction.shape}"
        )
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    painted = [
        PIL.Image.fromarray(colors[np.where(target == IGNORED, IGNORED, labels)]) for labels in (target, prediction)
    ]
    factor = min(1.0, LONGEST_SIDE / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    parts = [(image, title or "image"), (painted[0], "ground truth"), (painted[1], "prediction")]
    canvas = PIL.Image.new("RGB", (3 * size[0] + 2 * GAP, size[1] + CAPTION), BACKGROUND)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for i, (part, text) in enumerate(parts):
        left = i * (size[0] + GAP)
        canvas.paste(part.resize(size, Resampling.LANCZOS if i == 0 else Resampling.NEAREST), (left, CAPTION))
        pen.rectangle((left, 0, left + size[0] + GAP, CAPTION - 1), fill=BACKGROUND)
        pen.text((left + 4, 5), text, fill=TEXT, font=font)
    return canvas
