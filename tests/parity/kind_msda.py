"""Cases of multi-scale deformable attention alone: outputs and every gradient, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import seeding
import torch

from internimage.ops import ms_deform_attn


def run(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for number, case in enumerate(manifest["cases"]):
        arrays |= {f"op{number}.{key}": value for key, value in _one(manifest["seed"], number, case).items()}
    return arrays


def _one(seed: int, number: int, case: Mapping[str, Any]) -> dict[str, np.ndarray]:
    shapes = [(height, width) for height, width in case["spatial_shapes"]]
    batch, queries, heads, points = (case[key] for key in ("batch", "queries", "heads", "points"))

    def noise(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(seeding.uniform(seed, f"op{number}.{name}", shape))

    value = noise("value", batch, sum(h * w for h, w in shapes), heads, case["head_dim"])
    locations = noise("sampling_locations", batch, queries, heads, len(shapes), points, 2)
    locations = 0.5 + case["spread"] * locations
    logits = noise("attention_logits", batch, queries, heads, len(shapes) * points)
    weights = logits.softmax(-1).unflatten(-1, (len(shapes), points))
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    output = ms_deform_attn(inputs[0], shapes, inputs[1], inputs[2])
    output.backward(noise("grad", *output.shape))
    names = ("grad_value", "grad_sampling_locations", "grad_attention_weights")
    gradients = {name: tensor.grad.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return {"output": output.detach().numpy(), **gradients}
