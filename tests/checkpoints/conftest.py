"""Small models and files in foreign layouts, made as the original trainings made them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.backbones import variant
from internimage.classification import Classifier, ClassifierConfig
from internimage.classification.original.settings import classifier_from_settings
from internimage.hub.keys import original_state

SMALL = {"core_op": "DCNv3", "channels": 16, "depths": [1, 1, 2, 1], "groups": [1, 2, 4, 8], "num_classes": 5}


def random_classifier(config: ClassifierConfig) -> Classifier:
    """A classifier whose every entry differs, so that a swapped or forgotten one shows."""
    model = Classifier(config)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.normal_().abs_()
    return model.eval()


@pytest.fixture
def same_weights() -> Callable[[torch.nn.Module, torch.nn.Module], None]:
    """Assert that two modules hold the same tensors, bit for bit."""

    def check(given: torch.nn.Module, expected: torch.nn.Module) -> None:
        left, right = given.state_dict(), expected.state_dict()
        assert list(left) == list(right)
        for key, value in left.items():
            assert value.dtype == right[key].dtype and torch.equal(value, right[key]), key

    return check


@pytest.fixture
def pico() -> Classifier:
    """A classifier of a published size, small enough to save and load in a moment."""
    return random_classifier(ClassifierConfig(variant("internimage_pico"), 4, class_names=("a", "b", "c", "d")))


@pytest.fixture
def small() -> Classifier:
    return random_classifier(classifier_from_settings({**SMALL, "layer_scale": 1e-5, "post_norm": True}))


@pytest.fixture
def small_state(small: Classifier) -> dict[str, Tensor]:
    return original_state(small)


@pytest.fixture
def yacs_settings() -> dict[str, Any]:
    """The nested configuration of the small model, with text where a YAML reader leaves it."""
    return {
        "MODEL": {
            "TYPE": "intern_image",
            "NAME": "small",
            "NUM_CLASSES": 5,
            "DROP_RATE": 0.0,
            "DROP_PATH_RATE": 0.1,
            "DROP_PATH_TYPE": "linear",
            "LABEL_SMOOTHING": 0.1,
            "INTERN_IMAGE": {
                "CORE_OP": "DCNv3",
                "CHANNELS": 16,
                "DEPTHS": [1, 1, 2, 1],
                "GROUPS": [1, 2, 4, 8],
                "LAYER_SCALE": "1e-5",
                "OFFSET_SCALE": 1.0,
                "MLP_RATIO": 4.0,
                "POST_NORM": True,
                "RES_POST_NORM": False,
                "DW_KERNEL_SIZE": "None",
                "LEVEL2_POST_NORM": False,
                "LEVEL2_POST_NORM_BLOCK_IDS": None,
                "USE_CLIP_PROJECTOR": False,
                "CENTER_FEATURE_SCALE": False,
                "REMOVE_CENTER": False,
            },
        },
        "DATA": {"IMG_SIZE": 96, "BATCH_SIZE": 128},
        "OUTPUT": "runs",
    }


@pytest.fixture
def as_yacs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Any]], Any]:
    """Wrap dictionaries in a class that pickles like the configuration nodes of yacs; the class itself is then gone."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, values: Mapping[str, Any]) -> None:
            super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in values.items()})
            self.__dict__.update(
                __immutable__=True, __deprecated_keys__={"OLD"}, __renamed_keys__={}, __new_allowed__=False
            )

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode


@pytest.fixture
def small_file(
    tmp_path: Path, small_state: dict[str, Tensor], yacs_settings: dict[str, Any], as_yacs: Callable
) -> Path:
    """A file as the original training leaves it."""
    path = tmp_path / "ckpt_epoch_best.pth"
    torch.save({"model": small_state, "config": as_yacs(yacs_settings), "epoch": 3, "max_accuracy": 12.5}, path)
    return path
