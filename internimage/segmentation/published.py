"""From a row of the catalog to the segmentor that its checkpoint holds."""

from __future__ import annotations

from internimage.checkpoints.catalog import CatalogEntry, model_row
from internimage.data.labels import label_set
from internimage.segmentation import (
    HEADS,
    SegFormerConfig,
    SegmentationPreprocess,
    SegmentorConfig,
    SlidingWindow,
    UperNetConfig,
)
from internimage.segmentation.config import HeadConfig

# UperNet and SegFormer were trained with the 150 outputs of ADE20K on every data set.
DENSE_ROWS = 150
# Limits of the longer and the shorter side in pixels where they are not (4 * S, S) for an input size of S x S.
SCALES = {
    "cityscapes_19": (2048, 1024),
    "pascal_context_59": (4096, 520),
    "nyu_40": (640, 480),
    "closet_11": (384, 384),
}
WINDOW_STRIDE = (512, 512)


def published_config(row: str | CatalogEntry) -> SegmentorConfig:
    """Return the segmentor of a published checkpoint, given by its row in the catalog or the name of it.

    Raises:
        ValueError: the row is no segmentor, or its backbone is not built by this release.
    """
    entry, backbone, num_classes = model_row(row, "segmentation")
    assert entry.labels is not None  # a test looks at every row
    labels = label_set(entry.labels)
    has_all_outputs = entry.head in ("upernet", "segformer") and len(labels) != DENSE_ROWS
    return SegmentorConfig(
        backbone=backbone,
        num_classes=num_classes,
        head=_head(entry),
        preprocess=_preprocess(entry),
        class_names=labels.class_names,
        palette=labels.palette,
        classifier_rows=DENSE_ROWS if has_all_outputs else None,
    )


def _head(entry: CatalogEntry) -> HeadConfig:
    if entry.head == "upernet_small":
        return HEADS[entry.head]
    if entry.head == "upernet":
        return UperNetConfig(count_ignored_pixels=True)
    if entry.head == "segformer":
        return SegFormerConfig(count_ignored_pixels=True)
    if entry.backbone.startswith("flash_"):
        return HEADS["mask2former" if entry.backbone == "flash_internimage_t" else "mask2former_flash"]
    return HEADS["mask2former_large" if entry.labels in ("ade20k_150", "coco_stuff_171") else "mask2former"]


def _preprocess(entry: CatalogEntry) -> SegmentationPreprocess:
    """Return how the row was evaluated; dense heads on street scenes and one Flash model see sizes as they come."""
    height, width = (int(side) for side in (entry.input_size or "512x512").split("x"))
    is_street = entry.labels == "cityscapes_19"
    is_dense = entry.head != "mask2former"
    rounds = not (is_dense and (is_street or entry.backbone == "flash_internimage_t"))
    return SegmentationPreprocess(
        scale=SCALES.get(entry.labels or "", (4 * height, height)),
        multiple=32 if rounds else 1,
        window=SlidingWindow((height, width), WINDOW_STRIDE) if is_street and not is_dense else None,
    )
