"""Cases of the operators alone: outputs and every gradient, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import seeding
import torch
from torch import Tensor

from internimage.ops import dcnv3, dcnv4, ms_deform_attn

Case = Mapping[str, Any]
Noise = Callable[..., Tensor]


def run_dcnv3(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return _run(manifest, _dcnv3)


def run_dcnv4(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return _run(manifest, _dcnv4)


def run_attention(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return _run(manifest, _attention)


def _run(
    manifest: Mapping[str, Any], one: Callable[[Case, Noise], tuple[Tensor, dict[str, Tensor]]]
) -> dict[str, np.ndarray]:
    """Call the operator of every case; `one` gives its output and its inputs by name."""
    arrays: dict[str, np.ndarray] = {}
    for index, case in enumerate(manifest["cases"]):
        noise = partial(_noise, manifest["seed"], f"op{index}")
        output, inputs = one(case, noise)
        gradients = torch.autograd.grad(output, list(inputs.values()), noise("grad", *output.shape))
        arrays[f"op{index}.output"] = output.detach().numpy()
        arrays |= {f"op{index}.grad_{name}": x.numpy() for name, x in zip(inputs, gradients, strict=True)}
    return arrays


def _noise(seed: int, operator: str, name: str, *shape: int) -> Tensor:
    return torch.from_numpy(seeding.uniform(seed, f"{operator}.{name}", shape))


def _dcnv3(case: Case, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
    group, points, output_hw = case["group"], _points(case), _output_hw(case)
    x = _input(case, noise)
    offset = case["offset_amplitude"] * noise("offset", case["n"], *output_hw, group * points * 2)
    logits = noise("mask_logits", case["n"], *output_hw, group * points)
    mask = logits.unflatten(-1, (group, points)).softmax(-1).flatten(-2)
    inputs = {name: tensor.requires_grad_() for name, tensor in (("input", x), ("offset", offset), ("mask", mask))}
    return dcnv3(*inputs.values(), **_settings(case)), inputs


def _dcnv4(case: Case, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
    group, points = case["group"], _points(case)
    packed = noise("offset_mask", case["n"], *_output_hw(case), case["offset_mask_channels"])
    by_group = packed[..., : 3 * group * points].unflatten(-1, (group, 3 * points))
    by_group[..., : 2 * points] *= case["offset_amplitude"]  # a view: changes `packed`
    inputs = {"input": _input(case, noise).requires_grad_(), "offset_mask": packed.requires_grad_()}
    return dcnv4(*inputs.values(), **_settings(case)), inputs


def _attention(case: Case, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
    shapes = [(height, width) for height, width in case["spatial_shapes"]]
    batch, queries, heads, points = (case[key] for key in ("batch", "queries", "heads", "points"))
    value = noise("value", batch, sum(h * w for h, w in shapes), heads, case["head_dim"])
    locations = 0.5 + case["spread"] * noise("sampling_locations", batch, queries, heads, len(shapes), points, 2)
    logits = noise("attention_logits", batch, queries, heads, len(shapes) * points)
    weights = logits.softmax(-1).unflatten(-1, (len(shapes), points))
    named = {"value": value, "sampling_locations": locations, "attention_weights": weights}
    inputs = {name: tensor.requires_grad_() for name, tensor in named.items()}
    return ms_deform_attn(value, shapes, locations, weights), inputs


def _input(case: Case, noise: Noise) -> Tensor:
    return noise("input", case["n"], case["h"], case["w"], case["group"] * case["group_channels"])


def _pair(value: int | list[int]) -> tuple[int, int]:
    """(height, width) of a setting that is one number for both or a pair."""
    height, width = (value, value) if isinstance(value, int) else value
    return (height, width)


def _points(case: Case) -> int:
    height, width = _pair(case["kernel"])
    return height * width - int(case["remove_center"])


def _output_hw(case: Case) -> tuple[int, int]:
    kernel, stride, pad, dilation = (_pair(case[name]) for name in ("kernel", "stride", "pad", "dilation"))
    height, width = (
        (side + 2 * pad[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis, side in enumerate((case["h"], case["w"]))
    )
    return (height, width)


def _settings(case: Case) -> dict[str, Any]:
    return {
        "groups": case["group"],
        "kernel_size": _pair(case["kernel"]),
        "stride": _pair(case["stride"]),
        "padding": _pair(case["pad"]),
        "dilation": _pair(case["dilation"]),
        "offset_scale": case["offset_scale"],
        "remove_center": bool(case["remove_center"]),
    }
