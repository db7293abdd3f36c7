"""One model used by several threads: right answers, and nothing of the model changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import internimage as ii
from internimage.detection import RCNNConfig
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.segmentation import SegmentorConfig
from tests.threads import one_thread as one_thread

IMAGES = [np.random.default_rng(i).integers(0, 255, (32, 48, 3), dtype=np.uint8) for i in range(2)]


def numbers(result: Any) -> torch.Tensor:
    return result.label_map.float() if hasattr(result, "label_map") else result.scores


@pytest.mark.parametrize("kind", ["classifier", "upernet", "mask_rcnn"])
def test_threads_get_the_answers_of_one_thread_and_leave_the_model_alone(kind: str) -> None:
    model = small(ii.create(kind, backbone="internimage_pico", class_names=("a", "b", "c")))
    model.backbone.levels[0].eval()  # a frozen part
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    expected = [numbers(model.predict([image])[0]) for image in IMAGES]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: numbers(model.predict([IMAGES[i % 2]])[0]), range(8)))
    for i, answer in enumerate(answers):
        torch.testing.assert_close(answer, expected[i % 2])
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def small(model: Any) -> Any:
    """Let a model look at images of 32 x 48 as they are, and keep few objects."""
    config = model.config
    if isinstance(config, SegmentorConfig):
        model.config = replace(config, preprocess=replace(config.preprocess, scale=None))
    elif isinstance(config, RCNNConfig):
        few = replace(config.rpn, test=replace(config.rpn.test, pre_nms=50, kept=20))
        look = replace(config.preprocess, shorter_side=32, longer_side=64)
        model.config = replace(config, preprocess=look, rpn=few)
        model.rpn.config = few
    return model


def test_modes_come_back_after_the_last_user_also_when_users_overlap_or_fail() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2)).train()
    model[0].eval()
    with ExitStack() as second:
        with evaluation_mode(model):
            second.enter_context(evaluation_mode(model[1]))
            assert not model.training and not model[1].training
        assert model.training and not model[1].training  # the second one is not done
    assert model[1].training and not model[0].training
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError
    assert model.training and model[1].training and not model[0].training
