"""What the cases of whole networks share: a model with seeded weights, seeded pixels, norms of gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seeding
import torch
from torch import Tensor, nn

from internimage.hub.keys import to_official
from internimage.hub.load import from_original
from internimage.types import Images

Arrays = dict[str, np.ndarray]


def build(manifest: Mapping[str, Any]) -> Any:
    """Original settings and an original state dict become a model by the package's own loader."""
    shapes = {key: tuple(shape) for key, shape in manifest["shapes"].items()}
    values = seeding.state_dict(shapes, manifest["seed"], manifest.get("gains"))
    return from_original(manifest["config"], {key: torch.from_numpy(value) for key, value in values.items()})


def stored_inputs(manifest: Mapping[str, Any]) -> Arrays:
    """What a case stores as an input: regions, targets, random numbers; nothing else is read."""
    file = Path(manifest["folder"]) / "outputs.npz"
    if not file.exists():
        return {}
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files if name == "rois" or name.startswith(("gt_", "rand."))}


def pixels(source: Mapping[str, Any]) -> Tensor:
    """The normalized batch of a case."""
    if source["kind"] != "seeding.image":
        raise ValueError(f"expected an input of the kind 'seeding.image', given {source['kind']!r}")
    values = seeding.image(source["seed"], source["height"], source["width"], source.get("batch", 1))
    return torch.from_numpy(values)


def photo(source: Mapping[str, Any]) -> np.ndarray | None:
    """The uint8 image that a case starts from, None for one that starts from normalized pixels."""
    if not source["kind"].startswith("seeding.photo"):
        return None
    return seeding.photo(source["seed"], source["height"], source["width"])


def photos(manifest: Mapping[str, Any], prepare: Callable[[np.ndarray, Sequence[Any]], Images]) -> Arrays:
    """The pixels that photos of many sizes become; `prepare` takes a photo and the original's pipeline."""
    arrays: Arrays = {}
    for result in listed(manifest["results"]):
        pipeline = manifest["config"]["test_pipelines"][result["pipeline"]]
        images = prepare(seeding.photo(manifest["seed"], *result["photo"]), pipeline)
        arrays[result["key"]] = images.pixels[0].contiguous().numpy()
    return arrays


def gradient_norms(model: nn.Module, head: str | None, manifest: Mapping[str, Any]) -> np.ndarray:
    """The norm of the gradient of each parameter in the recorded order; -1 where it has none."""
    norms = {name: -1.0 if p.grad is None else float(p.grad.double().norm()) for name, p in model.named_parameters()}
    by_key = to_official(norms, head)
    return np.array([by_key[name] for name in listed(manifest["grad_norm_names"])])


def listed(value: str | list[Any]) -> list[Any]:
    """A list of the manifest, which may be written as a text."""
    return json.loads(value) if isinstance(value, str) else value
