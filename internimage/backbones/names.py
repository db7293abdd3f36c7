"""Backbones by name in recipes: from the name of a size to its settings and back."""

from __future__ import annotations

from dataclasses import replace

from internimage.backbones.config import VARIANTS, WITHOUT_SCALES, BackboneConfig, variant

THROUGH_DCNV4 = "dcnv3_through_dcnv4"


def below_head(name: str, *, drop_path_rate: float = 0.0) -> BackboneConfig:
    """Return a size as detectors and segmentors are trained on it.

    Raises:
        UnknownName: no such size.

    Example:
        >>> below_head("internimage_t", drop_path_rate=0.2).layer_scale
        1.0
    """
    config = replace(variant(name), drop_path_rate=drop_path_rate)
    return config if name in WITHOUT_SCALES else replace(config, layer_scale=1.0)


def like(config: BackboneConfig, other: BackboneConfig) -> BackboneConfig:
    """Return a size with the channels and the stochastic depth of another backbone."""
    return replace(config, in_chans=other.in_chans, drop_path_rate=other.drop_path_rate)


def size_of(config: BackboneConfig) -> str | None:
    """Return the name of the size of a backbone, whatever it reads and however it is trained; None for an own one.

    Example:
        >>> size_of(below_head("internimage_h", drop_path_rate=0.5))
        'internimage_h'
    """
    for name, known in VARIANTS.items():
        operator = "dcnv3" if config.operator == THROUGH_DCNV4 else config.operator
        if replace(like(config, known), layer_scale=known.layer_scale, operator=operator) == known:
            return name
    return None


def through_dcnv4(config: BackboneConfig, chosen: bool) -> BackboneConfig:
    """Return a backbone whose dcnv3 runs through the operator of FlashInternImage, or does not.

    Raises:
        ValueError: it has another operator.
    """
    if chosen and config.operator == "dcnv4":
        raise ValueError(
            "model.through_dcnv4 is for InternImage, whose operator is dcnv3; "
            f"{size_of(config) or 'this backbone'} has another one"
        )
    if config.operator == "dcnv4":
        return config
    return replace(config, operator=THROUGH_DCNV4 if chosen else "dcnv3")
