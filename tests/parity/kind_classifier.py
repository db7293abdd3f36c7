"""Cases of whole classifiers: maps, pooled vectors, logits and gradients, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import seeding
import torch

from internimage.checkpoints.rename import to_official
from internimage.classification import Classifier
from internimage.hub.factory import from_original


def run(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The outputs of a full-size model; it runs within little more than the memory of its weights."""
    with torch.inference_mode():
        arrays, _ = _forward(_model(manifest), _pixels(manifest["input"]))
    return arrays


def run_with_gradients(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The outputs, the gradient of the pixels and the norm of the gradient of every parameter."""
    model, pixels = _model(manifest), _pixels(manifest["input"]).requires_grad_()
    arrays, logits = _forward(model, pixels)
    upstream = seeding.uniform(manifest["seed"], "grad", tuple(logits.shape))
    (logits * torch.from_numpy(upstream).to(logits.dtype)).sum().backward()
    assert pixels.grad is not None
    arrays["grad_input"] = pixels.grad.numpy()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for key, gradient in to_official(gradients, model.config.head).items():
        arrays[f"grad_norm.{key}"] = gradient.double().norm().numpy()
    return arrays


def _model(manifest: Mapping[str, Any]) -> Classifier:
    """Original settings and an original state dict become a model by the package's own loader."""
    shapes = {key: tuple(shape) for key, shape in manifest["shapes"].items()}
    values = seeding.state_dict(shapes, manifest["seed"], manifest.get("gains"))
    return from_original(manifest["config"], {key: torch.from_numpy(value) for key, value in values.items()})


def _pixels(source: Mapping[str, Any]) -> torch.Tensor:
    if source["kind"] != "seeding.image":
        raise ValueError(f"unknown input {source['kind']!r}")
    return torch.from_numpy(seeding.image(source["seed"], source["height"], source["width"], source["batch"]))


def _forward(model: Classifier, pixels: torch.Tensor) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    features = model.backbone(pixels)
    maps = {f"stage{i}": m.permute(0, 2, 3, 1) for i, m in enumerate(features.maps, start=1)}
    logits = model.head(features)
    named = {**maps, "pooled": model.head.pool(features), "logits": logits}
    return {name: value.detach().contiguous().numpy() for name, value in named.items()}, logits
