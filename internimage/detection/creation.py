"""What the caller of `create` asks of a detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from internimage.backbones import BackboneConfig, variant
from internimage.checkpoints.catalog import COMPOSITE_PREFIX
from internimage.data.images.normalize import for_channels
from internimage.detection import DETECTORS, DINOConfig, PreprocessConfig, RCNNConfig
from internimage.segmentation.creation import WITHOUT_SCALES

Merge = Callable[[str | BackboneConfig], BackboneConfig]


@dataclasses.dataclass(frozen=True)
class DetectorWish:
    """What the caller of `create` asks of a detector; None leaves the choice to the weights."""

    architecture: str
    backbone: str | BackboneConfig | None
    num_classes: int | None
    class_names: tuple[str, ...] | None
    head: object
    preprocess: object

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must hold {self.num_classes} names, given {len(self.class_names)}")
        if self.head is not None:
            raise ValueError(f"a {self.architecture} takes no head; other settings: internimage.detection.RCNNConfig")
        if self.preprocess is not None and not isinstance(self.preprocess, PreprocessConfig):
            raise TypeError(f"preprocess must be an internimage.detection.PreprocessConfig, given {self.preprocess!r}")
        if self.is_composite and self.architecture != "dino":
            raise ValueError(f"a composite backbone goes with 'dino', given {self.architecture!r}")

    @property
    def is_composite(self) -> bool:
        """Whether the caller names a composite backbone."""
        return isinstance(self.backbone, str) and self.backbone.startswith(COMPOSITE_PREFIX)

    @property
    def classes(self) -> int | None:
        """Number of classes asked for."""
        return self.num_classes if self.class_names is None else len(self.class_names)

    @property
    def size(self) -> str | BackboneConfig | None:
        """The backbone, or each backbone of a composite."""
        return self.backbone.removeprefix(COMPOSITE_PREFIX) if isinstance(self.backbone, str) else self.backbone

    def fresh(self, merge: Merge) -> RCNNConfig | DINOConfig:
        """Return the detector to build with fresh heads; `merge` adds what weights and caller say of the backbone."""
        size = self.size
        if size is None or self.classes is None:
            raise ValueError(
                f"a detector needs a backbone and its classes: create({self.architecture!r}, "
                "backbone='internimage_t', num_classes=...)"
            )
        if isinstance(size, str) and size not in WITHOUT_SCALES:
            size = dataclasses.replace(variant(size), layer_scale=1.0)
        config = DETECTORS[self.architecture](merge(size), self.classes)
        if isinstance(config, DINOConfig):
            config = dataclasses.replace(config, num_backbones=2 if self.is_composite else 1)
        return dataclasses.replace(
            config,
            preprocess=self.preprocess if isinstance(self.preprocess, PreprocessConfig) else PreprocessConfig(),
            class_names=self.class_names,
        )

    def on(self, found: RCNNConfig | DINOConfig, merge: Merge) -> RCNNConfig | DINOConfig:
        """Return the detector to build on the weights of another."""
        example = DETECTORS[self.architecture](found.backbone, found.num_classes)
        composite = self.backbone is not None and self.is_composite != (found.kind.startswith("cb_"))
        if composite or _family(example) != _family(found):
            raise ValueError(
                f"the weights are those of another detector than {self.architecture!r} with the backbone "
                f"{self.backbone!r}; to take only their backbone, load it with create(size, weights=...) and save it"
            )
        config = found
        if self.classes is not None and self.classes != found.num_classes:
            config = dataclasses.replace(found, num_classes=self.classes, class_names=None)
        backbone = merge(self.size or found.backbone)
        own = isinstance(self.preprocess, PreprocessConfig)
        return dataclasses.replace(
            config,
            backbone=backbone,
            preprocess=self.preprocess if own else for_channels(found.preprocess, backbone.in_chans),
            class_names=self.class_names or config.class_names,
        )


def _family(config: RCNNConfig | DINOConfig) -> tuple[object, ...]:
    """What tells the named detectors apart."""
    if isinstance(config, DINOConfig):
        return ("dino",)
    return (config.kind, config.mask is not None)
