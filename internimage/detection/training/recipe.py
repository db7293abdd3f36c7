"""The recipe of a detector: every setting of a run, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from internimage.backbones import BackboneConfig, variant
from internimage.backbones.config import COMPOSITE_PREFIX as COMPOSITE
from internimage.backbones.names import THROUGH_DCNV4, below_head, like, size_of, through_dcnv4
from internimage.detection.batches.pipelines import PIPELINES
from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.detection.presets import DETECTORS, SMALL_DETECTORS
from internimage.errors import UnknownName
from internimage.evaluation.object_metrics import METRICS, Metric
from internimage.recipe import (
    Choice,
    Fraction,
    FromOne,
    SceneDataSettings,
    SceneModelSettings,
    SceneOptimizerSettings,
    SceneRecipe,
)
from internimage.recipe.layer_rules import LayerRules
from internimage.recipe.recipe import CONFIG
from internimage.settings import replaced

ARCHITECTURES = {**DETECTORS, **SMALL_DETECTORS}
OWN = "own"
DetectorConfig = RCNNConfig | DINOConfig


@dataclass(frozen=True)
class DetectionDataSettings(SceneDataSettings):
    """How the data set is read.

    Args:
        val_split: part to validate on, "val" or "test"; None is "val". Without one, training images are set aside.
        metric: what validation measures, see `internimage.detection.evaluate.evaluate_detection`.
        keep_empty: also train on images without an object; the published runs leave them out, as "auto" does in every
            layout but OpenImages.
        balance_threshold: fraction of the images from which on a class is common enough; images of rarer classes are
            repeated, see `internimage.detection.batches.grouping.class_balanced`; 0 for none.
    """

    val_split: Literal["val", "test"] | None = None
    metric: Metric = "coco"
    keep_empty: Literal["auto", "yes", "no"] = "auto"
    balance_threshold: Fraction = 0.0


@dataclass(frozen=True)
class DetectionOptimizerSettings(SceneOptimizerSettings):
    """How weights move.

    Args:
        composite_layer_decay: let `layer_decay` reach the backbones of a composite; the published runs keep both at the
            full rate by a slip.
    """

    composite_layer_decay: bool = True


@dataclass(frozen=True)
class DetectionAugmentSettings:
    """How training images are varied.

    Args:
        pipeline: a published pipeline of `detection.batches.pipelines.PIPELINES`, or "own", which the other settings
            describe.
        shorter_side: smallest and largest limit of the shorter side in pixels.
        longer_side: limit of the longer side in pixels.
        smallest_crop: smallest fraction of height and width that is kept, 0..1; 1 for no crops.
        flip: how often an image is mirrored, 0..1; 0 where left and right differ.
    """

    pipeline: str = "3x"
    shorter_side: tuple[int, int] = (480, 800)
    longer_side: FromOne = 1333
    smallest_crop: Fraction = 1.0
    flip: Fraction = 0.5


def _architecture(recipe: DetectionRecipe) -> str | None:
    return architecture_of(recipe.model.config)


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(SceneRecipe):
    """Every setting of a run that trains a detector.

    Args:
        data: how the data set is read.
        augment: how training images are varied.
        schedule: how long the run is and how the learning rate moves.
    """

    task: ClassVar[str] = "detection"
    FINE_TUNING_EPOCHS: ClassVar[int] = 12
    FORMER: ClassVar[frozenset[str]] = frozenset({"slow_mask_embeddings"})
    SHORT: ClassVar[Mapping[str, str]] = {
        **SceneRecipe.SHORT,
        **{f"preprocess.{name}": f"{CONFIG}.preprocess.{name}" for name in ("shorter_side", "longer_side", "divisor")},
        **{f"model.{name}": f"{CONFIG}.{name}" for name in ("max_per_image", "feedforward_slices")},
        "model.denoising_queries": f"{CONFIG}.denoising.num_queries",
    }
    CHOICES: ClassVar[Mapping[str, Choice[Any]]] = {
        "model.architecture": Choice(
            str,
            _architecture,
            lambda recipe, name: with_architecture(recipe, name),
            "a detector of `internimage.detection.DETECTORS` or `SMALL_DETECTORS`: mask_rcnn, dino, ...",
        ),
        "model.backbone": Choice(
            str,
            lambda recipe: backbone_name(recipe.model.config),
            lambda recipe, name: with_backbone(recipe, name),
            'a size of `internimage.backbones.VARIANTS`; for DINO also with "cb_" in front, a composite of two.',
        ),
        "model.through_dcnv4": Choice(
            bool,
            lambda recipe: recipe.model.config.backbone.operator == THROUGH_DCNV4,
            lambda recipe, chosen: replaced(
                recipe, {f"{CONFIG}.backbone": through_dcnv4(recipe.model.config.backbone, chosen)}
            ),
            "run the operator of InternImage by the one of FlashInternImage; the function stays the same.",
        ),
        "model.learn_masks": Choice(
            bool,
            lambda recipe: has_masks(recipe.model.config),
            lambda recipe, chosen: recipe if chosen else without_masks(recipe),
            "whether R-CNNs keep their mask head; a run on data without masks goes without it unless the user chooses.",
        ),
    }

    model: SceneModelSettings[RCNNConfig | DINOConfig]
    data: DetectionDataSettings = field(default_factory=DetectionDataSettings)
    optimizer: DetectionOptimizerSettings = field(default_factory=DetectionOptimizerSettings)
    augment: DetectionAugmentSettings = field(default_factory=DetectionAugmentSettings)

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            UnknownName: no such pipeline or metric.
        """
        if self.augment.pipeline not in (OWN, *PIPELINES):
            raise UnknownName("pipeline", self.augment.pipeline, (OWN, *PIPELINES))
        if self.data.metric not in METRICS:
            raise UnknownName("metric", self.data.metric, METRICS)

    def layer_rules(self) -> LayerRules:
        """Return how fast each part of the model learns; DINO's embedding of the levels is as slow as the stem."""
        enters = self.optimizer.composite_layer_decay
        return replace(super().layer_rules(), like_stem=r"transformer\.level_embedding", enters_composites=enters)


def has_masks(config: DetectorConfig) -> bool:
    """Whether a detector has a mask head."""
    return isinstance(config, RCNNConfig) and config.mask is not None


def without_masks(recipe: DetectionRecipe) -> DetectionRecipe:
    """Return a recipe whose detector finds boxes only."""
    return replaced(recipe, {f"{CONFIG}.mask": None}) if has_masks(recipe.model.config) else recipe


def backbone_name(config: DetectorConfig) -> str | None:
    """Return the name of the backbone of a detector, None for an own one."""
    size = size_of(config.backbone)
    is_composite = isinstance(config, DINOConfig) and config.num_backbones == 2
    return f"{COMPOSITE}{size}" if is_composite and size else size


def architecture_of(config: DetectorConfig) -> str | None:
    """Return the name of a detector, whatever its backbone and preprocessing; None for an own one."""
    for name in ARCHITECTURES:
        known = preset(name, config.backbone, like=config)
        if config in (known, replace(known, mask=None) if isinstance(known, RCNNConfig) else known):
            return name
    return None


def preset(name: str, backbone: BackboneConfig, *, like: DetectorConfig) -> DetectorConfig:
    """Return a detector by its name, with what recipes set on another one: preprocessing, denoising, slices, composite.

    Args:
        name: a key of `ARCHITECTURES`.
        backbone: its backbone.
        like: the other detector; what both kinds have and a recipe may set is taken over from it.
    """
    config = replace(ARCHITECTURES[name](backbone, like.num_classes), preprocess=like.preprocess)
    if isinstance(config, DINOConfig) and isinstance(like, DINOConfig):
        config = replace(
            config,
            num_backbones=like.num_backbones,
            feedforward_slices=like.feedforward_slices,
            denoising=replace(config.denoising, num_queries=like.denoising.num_queries),
        )
    return replace(config, max_per_image=like.max_per_image)


def _usual(name: str | None, config: DetectorConfig) -> DetectorConfig:
    """Return a detector as its preset has it."""
    return config if name is None else ARCHITECTURES[name](config.backbone, config.num_classes)


def with_architecture(recipe: DetectionRecipe, name: str) -> DetectionRecipe:
    """Return a recipe for another detector; what the recipe sets beyond its preset goes along.

    Raises:
        UnknownName: no such detector.
    """
    if name not in ARCHITECTURES:
        raise UnknownName("architecture", name, ARCHITECTURES)
    config = recipe.model.config
    usual, fresh = _usual(architecture_of(config), config), ARCHITECTURES[name](config.backbone, config.num_classes)
    changed = preset(name, config.backbone, like=config)
    if config.max_per_image == usual.max_per_image:
        changed = replace(changed, max_per_image=fresh.max_per_image)
    if isinstance(changed, DINOConfig) and isinstance(fresh, DINOConfig) and isinstance(usual, DINOConfig):
        is_usual = isinstance(config, DINOConfig) and config.denoising == usual.denoising
        changed = replace(changed, denoising=fresh.denoising) if is_usual else changed
    return replaced(recipe, {CONFIG: changed})


def with_backbone(recipe: DetectionRecipe, name: str) -> DetectionRecipe:
    """Return a recipe for another backbone.

    Raises:
        UnknownName: no such size.
        ValueError: a composite under a detector that has none, or a size that lacks the operator of the recipe.
    """
    config = recipe.model.config
    size, is_composite = name.removeprefix(COMPOSITE), name.startswith(COMPOSITE)
    variant(size)  # which names the nearest ones
    architecture = architecture_of(config)
    if is_composite and not isinstance(config, DINOConfig):
        raise ValueError(f"a composite backbone goes with DINO, given {architecture!r}")
    backbone = like(below_head(size), config.backbone)
    if config.backbone.operator == THROUGH_DCNV4:
        backbone = through_dcnv4(backbone, True)
    changed: DetectorConfig = replace(config, backbone=backbone)
    if architecture is not None:  # whose pyramid may depend on the backbone
        changed = preset(architecture, backbone, like=config)
        if isinstance(changed, RCNNConfig) and not has_masks(config):
            changed = replace(changed, mask=None)
    if isinstance(changed, DINOConfig):
        changed = replace(changed, num_backbones=2 if is_composite else 1)
    return replaced(recipe, {CONFIG: changed})
