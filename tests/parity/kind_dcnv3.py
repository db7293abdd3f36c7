"""Cases of the operator alone: outputs and every gradient, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import seeding
import torch

from internimage.ops import dcnv3


def run(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for number, case in enumerate(manifest["cases"]):
        arrays |= {f"op{number}.{key}": value for key, value in _one(manifest["seed"], number, case).items()}
    return arrays


def _one(seed: int, number: int, case: Mapping[str, Any]) -> dict[str, np.ndarray]:
    n, group, width = case["n"], case["group"], case["group_channels"]
    span = case["dilation"] * (case["kernel"] - 1) + 1
    ho, wo = ((case[side] + 2 * case["pad"] - span) // case["stride"] + 1 for side in "hw")
    points = case["kernel"] ** 2 - case["remove_center"]

    def noise(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(seeding.uniform(seed, f"op{number}.{name}", shape))

    x = noise("input", n, case["h"], case["w"], group * width)
    offset = case["offset_amplitude"] * noise("offset", n, ho, wo, group * points * 2)
    logits = noise("mask_logits", n, ho, wo, group * points)
    mask = logits.unflatten(-1, (group, points)).softmax(-1).flatten(-2)
    inputs = [tensor.requires_grad_() for tensor in (x, offset, mask)]
    output = dcnv3(
        *inputs,
        groups=group,
        kernel_size=case["kernel"],
        stride=case["stride"],
        padding=case["pad"],
        dilation=case["dilation"],
        offset_scale=case["offset_scale"],
        remove_center=bool(case["remove_center"]),
    )
    output.backward(noise("grad", *output.shape))
    gradients = {f"grad_{name}": x.grad for name, x in zip(("input", "offset", "mask"), inputs, strict=True)}
    return {"output": output.detach().numpy(), **{name: grad.numpy() for name, grad in gradients.items()}}
