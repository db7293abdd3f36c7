"""Every setting of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from internimage.recipe import DataSettings, LayerRules, ModelSettings, Recipe
from internimage.recipe.schedules import EpochSchedule
from tests.rotation.model import RotationConfig


@dataclass(frozen=True)
class RotationSchedule:
    """How long a run is."""

    epochs: int = 1
    warmup_epochs: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RotationRecipe(Recipe):
    """Every setting of a run that trains a rotation finder."""

    task: ClassVar[str] = "rotation"
    WARMUP: ClassVar[str] = "schedule.warmup_epochs"
    FINE_TUNING_EPOCHS: ClassVar[int] = 1

    model: ModelSettings[RotationConfig]
    data: DataSettings = field(default_factory=lambda: DataSettings(batch_size=4, workers=0, holdout=4))
    schedule: RotationSchedule = field(default_factory=RotationSchedule)

    def layer_rules(self) -> LayerRules:
        return LayerRules(self.optimizer.layer_decay, self.optimizer.weight_decay)

    def rates(self, steps_per_epoch: int, *, world: int = 1) -> EpochSchedule:
        warmup = self.schedule.warmup_epochs
        return EpochSchedule("cosine", self.schedule.epochs, warmup, 1, 0.1, steps_per_epoch, 1e-3, 0.0, 1e-5)

    def warmup_unit(self, steps_per_epoch: int) -> int:
        return steps_per_epoch
