"""The segmentor that a checkpoint holds: the first of several descriptions that is there.

It is the configuration in a file of ours, the caller's settings, the catalog row, or a configuration stored by the
original training.
"""

from __future__ import annotations

from internimage.checkpoints.catalog import info
from internimage.flow import Checkpoint, Settings
from internimage.segmentation.config import SegmentorConfig
from internimage.segmentation.original.settings import segmentor_from_settings
from internimage.segmentation.published import published_config


def recognize(checkpoint: Checkpoint, row: str | None, settings: Settings | None) -> SegmentorConfig | None:
    """Return the segmentor that a checkpoint holds, None for other models, see `internimage.flow.Recognize`.

    Raises:
        ValueError: nothing describes it.
    """
    if checkpoint.config is not None:
        return checkpoint.config if isinstance(checkpoint.config, SegmentorConfig) else None
    if not (checkpoint.is_part and any(key.startswith("decode_head.") for key in checkpoint.shapes)):
        return None
    names, palette = checkpoint.stated.class_names, checkpoint.stated.palette
    if palette is not None and (names is None or len(names) != len(palette)):
        palette = None
    if settings is not None:
        return segmentor_from_settings(settings, class_names=names, palette=palette)
    entry = None if row is None else info(row)
    if entry is not None and entry.is_built and entry.task == "segmentation":
        published = published_config(entry)
        if _num_rows(checkpoint) == published.rows:
            return published
    if checkpoint.stated.settings is None:
        raise ValueError(
            f"{checkpoint.source} is a segmentor that does not state its settings; give them as the original writes "
            "them: load(..., settings={'backbone': ..., 'decode_head': ...})"
        )
    return segmentor_from_settings(checkpoint.stated.settings, class_names=names, palette=palette)


def _num_rows(checkpoint: Checkpoint) -> int | None:
    """Return the number of classes in the last layer of a segmentor, without the "nothing" of Mask2Former."""
    shapes = checkpoint.shapes
    if "decode_head.cls_embed.weight" in shapes:
        return shapes["decode_head.cls_embed.weight"][0] - 1
    return shapes.get("decode_head.conv_seg.weight", (None,))[0]
