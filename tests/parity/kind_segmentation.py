"""Cases of whole segmentors: maps, logits, label maps, losses and gradients, in float32 on the CPU."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import seeding
import torch
from torch import Tensor, nn

from internimage.checkpoints.rename import to_official
from internimage.hub.factory import from_original
from internimage.segmentation import Segmentor
from internimage.segmentation import loss as losses
from internimage.segmentation.mask2former.network import Mask2FormerHead
from internimage.segmentation.original.settings import preprocess_from_pipeline
from internimage.segmentation.postprocess import ScoreMap
from internimage.segmentation.preprocess import prepare
from internimage.segmentation.upernet import UperNetHead, resize_map
from internimage.types import Images

Arrays = dict[str, np.ndarray]


def run(manifest: Mapping[str, Any]) -> Arrays:
    """All stations of one image, from the pixels or from the photo."""
    folder = Path(manifest["folder"])
    if "grad_norm_names" in manifest:
        return run_training(manifest, np.load(folder / "outputs.npz")["gt_semantic_seg"])
    model = build(manifest)
    source = manifest["input"]
    if "photo" in source["kind"]:
        photo = seeding.photo(source["seed"], source["height"], source["width"])
        if "img_ratios" in manifest["config"]["test_pipeline"][1]:
            return run_many_scales(model, manifest, photo)
        images = model.preprocess([photo])
        extra = {"input": images.pixels[0].contiguous().numpy()}
    else:
        images, extra = images_of(source), {}
    with torch.inference_mode():
        extra |= answers(model, images)
        with recorded(model) as arrays:
            model(images.pixels)  # the maps of the whole image are recorded, also where windows give the answer
        extra |= heads(model, images)
    return {**extra, **arrays}


def run_training(manifest: Mapping[str, Any], labels: np.ndarray) -> Arrays:
    """The losses of one step, the norm of every gradient and the running statistics afterward."""
    model = build(manifest).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    seed = manifest["seed"]
    targets = torch.from_numpy(labels).long()
    logits: dict[str, Tensor] = {}
    if isinstance(model.head, UperNetHead) and model.head.auxiliary is not None:
        model.head.register_forward_hook(lambda m, x, y: logits.update(decode=y))
        model.head.auxiliary.register_forward_hook(lambda m, x, y: logits.update(aux=y))
    with seeded_points(seed) as shapes:
        named = model.loss(images_of(manifest["input"]), targets)
    total = torch.stack(list(named.values())).sum()
    total.backward()
    arrays = {original_loss(name): value.detach().numpy() for name, value in named.items()}
    arrays |= {f"loss.{name}.acc_seg": accuracy(value, targets) for name, value in logits.items()}
    norms = {
        name: p.grad.double().norm() if p.grad is not None else torch.tensor(-1.0)
        for name, p in model.named_parameters()
    }
    by_key = to_official(norms, model.config.head.kind)
    names = manifest["grad_norm_names"]
    names = json.loads(names) if isinstance(names, str) else names
    arrays["grad_norm"] = np.array([float(by_key[name]) for name in names], dtype=np.float32)
    arrays["total"] = total.detach().numpy()
    state = to_official(model.state_dict(), model.config.head.kind)
    if shapes:
        arrays["rand_shapes"] = np.array(shapes)
    if "bn_running_keys" in manifest:
        arrays["bn_running_after"] = torch.cat([state[key] for key in manifest["bn_running_keys"]]).numpy()
    return {name: np.asarray(value) for name, value in arrays.items()}


def accuracy(logits: Tensor, targets: Tensor) -> np.ndarray:
    """Percentage of the labeled pixels whose best class is right."""
    best = resize_map(logits.detach(), targets.shape[1:]).argmax(dim=1)
    return np.float32(100.0 * (best == targets)[targets != losses.IGNORED].float().mean())


def run_many_scales(model: Segmentor, manifest: Mapping[str, Any], photo: np.ndarray) -> Arrays:
    """Every scale, plain and flipped; the mean of the probabilities decides."""
    augment = manifest["config"]["test_pipeline"][1]
    arrays: Arrays = {}
    sizes, mean = [], torch.zeros(())
    number = 0
    for ratio in augment["img_ratios"]:
        scale = tuple(int(side * ratio) for side in augment["img_scale"])
        config = dataclasses.replace(model.config.preprocess, scale=scale)
        plain = model.preprocess([photo], config)
        for is_flipped in (False, True):
            pixels = plain.pixels.flip(3) if is_flipped else plain.pixels
            images = dataclasses.replace(plain, pixels=pixels)
            with torch.inference_mode():
                [scores] = model.run(images)
                probability = whole(scores).softmax(dim=0)
            probability = probability.flip(2) if is_flipped else probability
            arrays[f"tta{number}.input"] = pixels.contiguous().numpy()
            arrays[f"tta{number}.prob"] = probability[None].contiguous().numpy()
            sizes.append((*pixels.shape[2:], int(is_flipped)))
            mean = mean + probability
            number += 1
    arrays["tta.sizes"] = np.array(sizes)
    arrays["input"] = arrays["tta0.input"][0]
    arrays["label_map"] = mean.argmax(dim=0).to(torch.uint8)[None].numpy()
    return arrays


def run_preprocess(manifest: Mapping[str, Any]) -> Arrays:
    """The pixels of photos of many sizes."""
    arrays: Arrays = {}
    results = manifest["results"]
    for result in json.loads(results) if isinstance(results, str) else results:
        config = preprocess_from_pipeline(manifest["config"]["test_pipelines"][result["pipeline"]], {})
        images = prepare([seeding.photo(manifest["seed"], *result["photo"])], config)
        arrays[result["key"]] = images.pixels[0].contiguous().numpy()
    return arrays


def build(manifest: Mapping[str, Any]) -> Segmentor:
    """Original settings and an original state dict become a model by the package's own loader."""
    shapes = {key: tuple(shape) for key, shape in manifest["shapes"].items()}
    values = seeding.state_dict(shapes, manifest["seed"], manifest.get("gains"))
    model = from_original(manifest["config"], {key: torch.from_numpy(value) for key, value in values.items()})
    assert isinstance(model, Segmentor)
    return model


def images_of(source: Mapping[str, Any]) -> Images:
    pixels = torch.from_numpy(seeding.image(source["seed"], source["height"], source["width"], source.get("batch", 1)))
    size = (source["height"], source["width"])
    original = tuple(source.get("ori_shape", size))[:2]
    return Images(pixels, torch.tensor([size] * len(pixels)), ((original[0], original[1]),) * len(pixels))


@contextmanager
def recorded(model: Segmentor) -> Iterator[dict[str, Any]]:
    """Collect the outputs of the layers that the original recorded."""
    arrays: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            arrays[name] = output.detach().contiguous().numpy()

        return hook

    def keep_maps(module: nn.Module, inputs: object, output: Any) -> None:
        arrays.update({f"backbone{i}": x.contiguous().numpy() for i, x in enumerate(output.maps)})

    handles = [model.backbone.register_forward_hook(keep_maps)]
    head = model.head
    if isinstance(head, UperNetHead):
        parts = {
            **{f"head.lateral{i}": layer for i, layer in enumerate(head.laterals)},
            **{f"head.ppm{i}": layer for i, layer in enumerate(head.pooled)},
            **{f"head.fpn_conv{i}": layer for i, layer in enumerate(head.outputs)},
            "head.psp_bottleneck": head.bottleneck,
            "head.fpn_bottleneck": head.fusion,
        }
        handles += [layer.register_forward_hook(keep(name)) for name, layer in parts.items()]
    handles.append(head.register_forward_hook(keep("head.semantic" if is_mask2former(model) else "head.logits")))
    yield arrays
    for handle in handles:
        handle.remove()


def is_mask2former(model: Segmentor) -> bool:
    return isinstance(model.head, Mask2FormerHead)


def heads(model: Segmentor, images: Images) -> Arrays:
    """What `forward` leaves out: auxiliary logits; the queries after each layer and the maps that they look at."""
    features = model.backbone(images.pixels)
    if isinstance(model.head, UperNetHead):
        logits = model.head.auxiliary_logits(features)
        return {} if logits is None else {"aux.logits": logits.contiguous().numpy()}
    if not isinstance(model.head, Mask2FormerHead):
        return {}
    pixels = model.head.pixel_decoder(features)
    arrays = {f"pixel.memory{i}": x.contiguous().numpy() for i, x in enumerate(pixels.memory)}
    arrays["pixel.mask_feature"] = pixels.mask_features.contiguous().numpy()
    for i, output in enumerate(model.head.layer_outputs(features)):
        arrays[f"layer{i}.cls"] = output.class_logits.numpy()
        arrays[f"layer{i}.mask"] = output.mask_logits.contiguous().numpy()
    return arrays


def answers(model: Segmentor, images: Images) -> Arrays:
    """Scores at the size of the input, probabilities at the original size, and the label map."""
    [scores] = model.run(images)
    at_input = whole(scores, scores.input_hw)[None]
    [again] = model.run(images)
    probabilities = whole(again).softmax(dim=0)[None]
    [answer] = model.postprocess(model.run(images), images)
    return {
        "logits_input_size": at_input.numpy(),
        "prob_ori_size": probabilities.numpy(),
        "label_map": answer.label_map[None].numpy(),
    }


def whole(scores: ScoreMap, size_hw: tuple[int, int] | None = None) -> Tensor:
    return torch.cat(list(scores.strips(size_hw)), dim=1)


@contextmanager
def seeded_points(seed: int) -> Iterator[list[tuple[int, ...]]]:
    """Replace the random places of the mask losses by the recorded ones, in the order of the calls; give the shapes."""
    original = losses.random_points
    shapes: list[tuple[int, ...]] = []

    def points(masks: int, number: int, like: Tensor) -> Tensor:
        values = seeding.uniform(seed, f"rand{len(shapes)}", (masks, number, 2))
        shapes.append(values.shape)
        return torch.from_numpy(((values / np.sqrt(3.0) + 1.0) / 2.0).astype(np.float32)).to(like)

    losses.random_points = points
    try:
        yield shapes
    finally:
        losses.random_points = original


def original_loss(name: str) -> str:
    """Return the recorded name of one of our losses."""
    dense = {"cross_entropy": "loss.decode.loss_ce", "auxiliary_cross_entropy": "loss.aux.loss_ce"}
    if name in dense:
        return dense[name]
    layer, _, part = name.rpartition("_")
    short = {"class": "loss_cls", "mask": "loss_mask", "dice": "loss_dice"}[part]
    return f"loss.decode.{layer.replace('layer', 'd')}.{short}" if layer else f"loss.decode.{short}"
