from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest

from internimage.backbones import variant
from internimage.classification import ClassificationPreprocess, Classifier, ClassifierConfig
from internimage.classification.head import HeadKind
from tests.threads import one_thread as one_thread

SMALL = replace(variant("internimage_pico"), channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8))
BACKBONES = {
    "plain": SMALL,
    # As H: norms around the branches, extra norms in level 2, gates; as G: norms behind the branches.
    "like_h": replace(
        SMALL, res_post_norm=True, dw_kernel_size=5, center_feature_scale=True, level2_post_norm_block_ids=(1,)
    ),
    "like_g": replace(
        SMALL, post_norm=True, dw_kernel_size=5, center_feature_scale=True, level2_post_norm_block_ids=(0,)
    ),
}


@cache
def prototype(backbone: str, head: HeadKind, drop_path: float) -> Classifier:
    config = ClassifierConfig(
        replace(BACKBONES[backbone], drop_path_rate=drop_path),
        num_classes=5,
        head=head,
        preprocess=ClassificationPreprocess(32),
        class_names=tuple(f"class {i}" for i in range(5)),
    )
    return Classifier(config)


@pytest.fixture
def build() -> Callable[..., Classifier]:
    """Return a small classifier in training mode; the copy of one that was built once."""

    def copy(backbone: str = "plain", head: HeadKind = "conv", *, drop_path: float = 0.0) -> Classifier:
        return deepcopy(prototype(backbone, head, drop_path)).train()

    return copy
