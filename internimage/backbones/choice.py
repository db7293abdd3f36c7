"""Which backbone to build: what the caller wants, checked against what the weights hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from internimage.backbones.config import COMPOSITE_PREFIX, WITHOUT_SCALES, BackboneConfig, variant

# What a fresh start may change without making the weights foreign.
FREE_SETTINGS = ("in_chans", "layer_scale", "drop_rate", "drop_path_rate", "drop_path_type", "remove_center")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the caller of `internimage.create` may ask of any model; None leaves the choice to the weights.

    Args:
        architecture: name of the architecture.
        backbone: size or settings of the backbone; "cb_" in front of a size stands for two of them.
        num_classes: number of classes.
        class_names: names of the classes.
        changes: settings of the backbone that were spelled out.
    """

    architecture: str
    backbone: str | BackboneConfig | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    changes: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must hold {self.num_classes} names, given {len(self.class_names)}")

    @property
    def classes(self) -> int | None:
        """Number of classes asked for."""
        return self.num_classes if self.class_names is None else len(self.class_names)

    @property
    def is_composite(self) -> bool:
        """Whether the caller names a composite backbone."""
        return isinstance(self.backbone, str) and self.backbone.startswith(COMPOSITE_PREFIX)

    @property
    def size(self) -> str | BackboneConfig | None:
        """The backbone, or each backbone of a composite."""
        return self.backbone.removeprefix(COMPOSITE_PREFIX) if isinstance(self.backbone, str) else self.backbone

    def merged(self, found: BackboneConfig | None) -> BackboneConfig:
        """Return the backbone to build on weights of `found`, None for a fresh one.

        Raises:
            UnknownName: no such size.
            ValueError: the weights are of another backbone.
        """
        return merged_backbone(self.size, found, self.changes)

    def with_scales(self) -> Wanted:
        """Return the same for a detector or a segmentor, whose published backbones have branch scales from 1 on."""
        if not isinstance(self.size, str) or self.size in WITHOUT_SCALES:
            return self
        return dataclasses.replace(self, backbone=dataclasses.replace(variant(self.size), layer_scale=1.0))


def merged_backbone(
    wanted: str | BackboneConfig | None, found: BackboneConfig | None, changes: Mapping[str, float | None]
) -> BackboneConfig:
    """Return the backbone to build: what the caller wants, checked against what the weights hold.

    Settings that a fresh start may change come from the caller if they were spelled out, else from the weights.

    Args:
        wanted: size or settings, None for those of the weights.
        found: what the weights hold, None without weights.
        changes: settings that were spelled out.

    Raises:
        UnknownName: no such size.
        ValueError: the weights are of another backbone.
    """
    config = variant(wanted) if isinstance(wanted, str) else wanted
    if config is None or found is None:
        base = config or found
        assert base is not None
        return dataclasses.replace(base, **changes)
    kept = {name: getattr(found, name) for name in FREE_SETTINGS}
    aligned = dataclasses.replace(config, **kept)
    names = [field.name for field in dataclasses.fields(config) if field.name not in changes]
    differing = [name for name in names if getattr(aligned, name) != getattr(found, name)]
    if differing:
        shown = ", ".join(
            f"{name}: {getattr(config, name)} asked, {getattr(found, name)} in the weights" for name in differing
        )
        raise ValueError(f"the weights are of another backbone than {wanted!r}: {shown}")
    return dataclasses.replace(config if isinstance(wanted, BackboneConfig) else found, **changes)
