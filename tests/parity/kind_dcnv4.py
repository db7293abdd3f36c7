"""Cases of dcnv4 alone: outputs and every gradient, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import seeding
import torch

from internimage.ops import dcnv4


def run(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for number, case in enumerate(manifest["cases"]):
        arrays |= {f"op{number}.{key}": value for key, value in _one(manifest["seed"], number, case).items()}
    return arrays


def _one(seed: int, number: int, case: Mapping[str, Any]) -> dict[str, np.ndarray]:
    n, group = case["n"], case["group"]
    span = case["dilation"] * (case["kernel"] - 1) + 1
    ho, wo = ((case[side] + 2 * case["pad"] - span) // case["stride"] + 1 for side in "hw")
    points = case["kernel"] ** 2 - case["remove_center"]

    def noise(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(seeding.uniform(seed, f"op{number}.{name}", shape))

    x = noise("input", n, case["h"], case["w"], group * case["group_channels"])
    packed = noise("offset_mask", n, ho, wo, case["offset_mask_channels"])
    by_group = packed[..., : 3 * group * points].unflatten(-1, (group, 3 * points))
    by_group[..., : 2 * points] *= case["offset_amplitude"]  # a view: changes `packed`
    output = dcnv4(
        x.requires_grad_(),
        packed.requires_grad_(),
        groups=group,
        kernel_size=case["kernel"],
        stride=case["stride"],
        padding=case["pad"],
        dilation=case["dilation"],
        offset_scale=case["offset_scale"],
        remove_center=bool(case["remove_center"]),
    )
    output.backward(noise("grad", *output.shape))
    arrays = {"output": output.detach(), "grad_input": x.grad, "grad_offset_mask": packed.grad}
    return {name: tensor.numpy() for name, tensor in arrays.items()}
