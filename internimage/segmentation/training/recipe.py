"""The recipe of a segmentor: every setting of a run, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from internimage import parallel
from internimage.backbones.names import THROUGH_DCNV4, below_head, like, size_of, through_dcnv4
from internimage.errors import UnknownName
from internimage.recipe import Choice, SceneDataSettings, SceneModelSettings, SceneOptimizerSettings, SceneRecipe
from internimage.recipe.layer_rules import LayerRules
from internimage.recipe.recipe import CONFIG
from internimage.segmentation.batches.augment import Augmentation
from internimage.segmentation.config import HEADS, HeadConfig, Mask2FormerConfig, SegmentorConfig, UperNetConfig
from internimage.settings import replaced

# Names in Mask2Former that the published runs gave the rate of the stem.
_MASK_EMBEDDINGS = r"head\.(?:query_position|query_features|level_embedding|classifier\.|mask_fc\d\.)"


@dataclass(frozen=True)
class SegmentationDataSettings(SceneDataSettings):
    """How the data set is read.

    Args:
        layout: see `internimage.data.label_maps.open.open_segmentation_dataset`; None recognizes it.
        train_split: part to train on; several are joined by "+".
        val_split: part to validate on. Without one, training images are set aside.
    """

    layout: str | None = None
    train_split: str = "train"
    val_split: str = "val"


@dataclass(frozen=True)
class SegmentationOptimizerSettings(SceneOptimizerSettings):
    """How weights move.

    Args:
        slow_mask_embeddings: give Mask2Former's class and mask embeddings and its queries the rate of the stem, as the
            published runs do by a slip.
    """

    slow_mask_embeddings: bool = False


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(SceneRecipe):
    """Every setting of a run that trains a segmentor.

    Args:
        data: how the data set is read.
        augment: how training images are varied; its crop is the size of the batches.
        schedule: how long the run is and how the learning rate moves.
    """

    task: ClassVar[str] = "segmentation"
    FINE_TUNING_EPOCHS: ClassVar[int] = 30
    FORMER: ClassVar[frozenset[str]] = frozenset({"composite_layer_decay"})
    SHORT: ClassVar[Mapping[str, str]] = {
        **SceneRecipe.SHORT,
        **{f"preprocess.{name}": f"{CONFIG}.preprocess.{name}" for name in ("scale", "multiple", "window")},
        "model.classifier_rows": f"{CONFIG}.classifier_rows",
        "model.count_ignored_pixels": f"{CONFIG}.head.count_ignored_pixels",
    }
    CHOICES: ClassVar[Mapping[str, Choice[Any]]] = {
        "model.architecture": Choice(
            str,
            lambda recipe: head_name(recipe.model.config.head),
            lambda recipe, name: with_head(recipe, name),
            "a head of `internimage.segmentation.HEADS`: upernet, segformer, mask2former, ...",
        ),
        "model.backbone": Choice(
            str,
            lambda recipe: size_of(recipe.model.config.backbone),
            lambda recipe, name: with_backbone(recipe, name),
            "a size of `internimage.backbones.VARIANTS`.",
        ),
        "model.through_dcnv4": Choice(
            bool,
            lambda recipe: recipe.model.config.backbone.operator == THROUGH_DCNV4,
            lambda recipe, chosen: replaced(
                recipe, {f"{CONFIG}.backbone": through_dcnv4(recipe.model.config.backbone, chosen)}
            ),
            "run the operator of InternImage by the one of FlashInternImage; the function stays the same.",
        ),
    }

    model: SceneModelSettings[SegmentorConfig]
    data: SegmentationDataSettings = field(default_factory=SegmentationDataSettings)
    optimizer: SegmentationOptimizerSettings = field(default_factory=SegmentationOptimizerSettings)
    augment: Augmentation = field(default_factory=Augmentation)

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            ValueError: images of different sizes in one batch.
        """
        if self.augment.crop_hw is None and self.data.batch_size > 1:
            raise ValueError("augment.crop_hw=none gives images of different sizes, which needs data.batch_size=1")

    def check_batch(self) -> None:
        """Refuse batches that the head cannot be trained on.

        Raises:
            ValueError: UperNet gets one image at a time.
        """
        head = self.model.config.head
        whole_batch = self.data.batch_size * parallel.world()
        if isinstance(head, UperNetConfig) and whole_batch < head.least_batch:
            raise ValueError(
                f"data.batch_size must be at least {head.least_batch} for the head {head_name(head) or head.kind}, "
                f"given {self.data.batch_size}: it averages a map to 1 x 1 and normalizes it over the batch, where one "
                "image has no variance (optimizer.accumulation_steps does not help). Where the memory ends, make "
                "augment.crop_hw smaller, set model.activation_checkpointing=true, or take another head"
            )

    def layer_rules(self) -> LayerRules:
        """Return how fast each part of the model learns."""
        is_slow = self.optimizer.slow_mask_embeddings and isinstance(self.model.config.head, Mask2FormerConfig)
        return replace(super().layer_rules(), like_stem=_MASK_EMBEDDINGS if is_slow else "")


def head_name(head: HeadConfig) -> str | None:
    """Return the name of a head of `HEADS`, None for an own one."""
    return next((name for name, known in HEADS.items() if _counting(known, head) == head), None)


def _counting(head: HeadConfig, like: HeadConfig) -> HeadConfig:
    """Return a head that counts ignored pixels as another one does."""
    if isinstance(head, Mask2FormerConfig) or isinstance(like, Mask2FormerConfig):
        return head
    return replace(head, count_ignored_pixels=like.count_ignored_pixels)


def with_head(recipe: SegmentationRecipe, name: str) -> SegmentationRecipe:
    """Return a recipe for another head.

    Raises:
        UnknownName: no such head.
    """
    if name not in HEADS:
        raise UnknownName("architecture", name, HEADS)
    config = recipe.model.config
    return replaced(recipe, {CONFIG: replace(config, head=_counting(HEADS[name], config.head))})


def with_backbone(recipe: SegmentationRecipe, name: str) -> SegmentationRecipe:
    """Return a recipe for another backbone.

    Raises:
        UnknownName: no such size.
        ValueError: the size lacks the operator of the recipe.
    """
    config = recipe.model.config
    backbone = like(below_head(name), config.backbone)
    if config.backbone.operator == THROUGH_DCNV4:
        backbone = through_dcnv4(backbone, True)
    return replaced(recipe, {CONFIG: replace(config, backbone=backbone)})
