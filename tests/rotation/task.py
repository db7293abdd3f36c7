"""The task, as the house sees it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import PIL.Image

from internimage.backbones import BackboneConfig
from internimage.backbones.choice import Wanted
from internimage.backbones.original.names import BACKBONE, PREFIX, below
from internimage.checkpoints.catalog import info
from internimage.checkpoints.formats.openmmlab import container
from internimage.data.images.read import ImageInput, read_shown
from internimage.flow import Checkpoint, PredictionOptions, Presented, Settings, Task
from internimage.visualize import draw
from tests.rotation.evaluate import evaluate_rotation
from tests.rotation.model import Rotation, RotationConfig, RotationPreprocess, Turn

KEY_RULES = (*below(PREFIX, PREFIX, BACKBONE), ("head.*", "turn.*"))


def create_config(
    wanted: Wanted, *, head: object, preprocess: object, on: RotationConfig | None, backbone: BackboneConfig | None
) -> RotationConfig:
    merged = wanted.merged(backbone if on is None else on.backbone)
    if on is not None:
        return replace(on, backbone=merged)
    own = preprocess if isinstance(preprocess, RotationPreprocess) else RotationPreprocess()
    return RotationConfig(merged, preprocess=own)


def recognize(checkpoint: Checkpoint, row: str | None, settings: Settings | None) -> RotationConfig | None:
    return checkpoint.config if isinstance(checkpoint.config, RotationConfig) else None


def published(name: str) -> RotationConfig:
    backbone = info(name).backbone_config
    assert backbone is not None
    return RotationConfig(backbone)


def own_kind(keys: Collection[str]) -> str | None:
    return "rotation" if "head.weight" in keys and "backbone.patch_embed.conv1.weight" in keys else None


def usual_hw(config: RotationConfig) -> tuple[int, int]:
    return config.preprocess.side, config.preprocess.side


def present(result: Turn, options: PredictionOptions, image_id: int) -> Presented:
    row = {"turn": result.name, "score": round(result.score, 6)}
    return Presented(result, row, result.name, f"{result.score:.1%}", "")


@draw.register
def _draw_turn(result: Turn, image: ImageInput, **_: object) -> PIL.Image.Image:
    return read_shown(image)


TASK = Task(
    name="rotation",
    model_name=lambda _: "rotation",
    noun="rotation finder",
    configs=(RotationConfig,),
    architectures=("rotation",),
    key_rules={"rotation": KEY_RULES},
    build=Rotation,
    create=create_config,
    published=published,
    recognize=recognize,
    own_kind=own_kind,
    to_original=container,
    usual_hw=usual_hw,
    evaluate=evaluate_rotation,
    present=present,
)
