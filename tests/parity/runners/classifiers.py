"""Cases of whole classifiers: maps, pooled vectors, logits and gradients, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import seeding
import torch

from internimage.classification import Classifier
from internimage.hub.keys import to_official
from runners.seeded import Arrays, build, pixels

# Gradients were recorded of reduced models; the smallest full-size one has 30 million parameters.
MOST_PARAMETERS_WITH_GRADIENTS = 20_000_000


def run(manifest: Mapping[str, Any]) -> Arrays:
    """The outputs of a model; of a reduced one also the gradient of the pixels and the norm of every gradient."""
    model, inputs = build(manifest), pixels(manifest["input"])
    if sum(p.numel() for p in model.parameters()) > MOST_PARAMETERS_WITH_GRADIENTS:
        with torch.inference_mode():
            return _forward(model, inputs)[0]
    arrays, logits = _forward(model, inputs.requires_grad_())
    upstream = seeding.uniform(manifest["seed"], "grad", tuple(logits.shape))
    (logits * torch.from_numpy(upstream).to(logits.dtype)).sum().backward()
    assert inputs.grad is not None
    arrays["grad_input"] = inputs.grad.numpy()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {key: gradient.double().norm() for key, gradient in to_official(gradients, model.config.head).items()}
    return arrays | {f"grad_norm.{key}": norm.numpy() for key, norm in norms.items()}


def _forward(model: Classifier, inputs: torch.Tensor) -> tuple[Arrays, torch.Tensor]:
    features = model.backbone(inputs)
    maps = {f"stage{i}": m.permute(0, 2, 3, 1) for i, m in enumerate(features.maps, start=1)}
    logits = model.head(features)
    named = {**maps, "pooled": model.head.pool(features), "logits": logits}
    return {name: value.detach().contiguous().numpy() for name, value in named.items()}, logits
