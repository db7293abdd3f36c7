"""Cases of whole segmentors: maps, logits, label maps, losses and gradients, in float32 on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import seeding
import torch
from torch import Tensor, nn

from internimage.hub.keys import to_official
from internimage.segmentation import Segmentor
from internimage.segmentation import loss as losses
from internimage.segmentation.mask2former.network import Mask2FormerHead
from internimage.segmentation.original.settings import preprocess_from_pipeline
from internimage.segmentation.postprocess import ScoreMap
from internimage.segmentation.preprocess import prepare
from internimage.segmentation.upernet import UperNetHead, resize_map
from internimage.types import Images
from runners.seeded import Arrays, build, gradient_norms, listed, photo, photos, pixels, stored_inputs


def run(manifest: Mapping[str, Any]) -> Arrays:
    """All stations of a batch, from the pixels or from the photo."""
    model: Segmentor = build(manifest)
    if "grad_norm_names" in manifest:
        return run_training(model, manifest, stored_inputs(manifest)["gt_semantic_seg"])
    image = photo(manifest["input"])
    if image is None:
        images, arrays = batch_of(manifest["input"]), {}
    else:
        looks = looks_of(manifest["config"]["test_pipeline"])
        if len(looks) > 1:
            return run_looks(model, looks, image)
        images = model.preprocess([image])
        arrays = {"input": images.pixels[0].contiguous().numpy()}
    with torch.inference_mode():
        arrays |= results(model, images)
        with recorded(model) as layers:
            model(images.pixels)  # the maps of the whole image are recorded, also where windows give the result
        arrays |= heads(model, images)
    return {**arrays, **layers}


def run_preprocess(manifest: Mapping[str, Any]) -> Arrays:
    """The pixels of photos of many sizes."""
    return photos(manifest, lambda image, pipeline: prepare([image], preprocess_from_pipeline(pipeline, {})))


def run_training(model: Segmentor, manifest: Mapping[str, Any], labels: np.ndarray) -> Arrays:
    """The losses of one step, the norm of every gradient and the running statistics afterward."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    targets = torch.from_numpy(labels).long()
    logits: dict[str, Tensor] = {}
    if not isinstance(model.head, Mask2FormerHead):
        model.head.register_forward_hook(lambda m, x, y: logits.update(decode=y))
    if isinstance(model.head, UperNetHead) and model.head.auxiliary is not None:
        model.head.auxiliary.register_forward_hook(lambda m, x, y: logits.update(aux=y))
    with seeded_points(manifest["seed"]) as shapes:
        named = model.loss(batch_of(manifest["input"]), targets)
    total = torch.stack(list(named.values())).sum()
    total.backward()
    arrays = {original_loss(name): value.detach().numpy() for name, value in named.items()}
    arrays |= {f"loss.{name}.acc_seg": accuracy(value, targets) for name, value in logits.items()}
    arrays["grad_norm"] = gradient_norms(model, model.config.head.kind, manifest)
    arrays["total"] = total.detach().numpy()
    if shapes:
        arrays["rand_shapes"] = np.array(shapes)
    if manifest.get("bn_running_keys"):
        state = to_official(model.state_dict(), model.config.head.kind)
        statistics = [state[key] for key in listed(manifest["bn_running_keys"])]
        arrays["bn_running_after"] = torch.cat(statistics).numpy()
    return arrays


def accuracy(logits: Tensor, targets: Tensor) -> np.ndarray:
    """Percentage of the labeled pixels whose best class is right, 0 without labels."""
    best = resize_map(logits.detach(), targets.shape[1:]).argmax(dim=1)
    is_labeled = targets != losses.IGNORED
    return (100.0 * ((best == targets) & is_labeled).sum() / is_labeled.sum().clamp(min=1)).numpy()


def looks_of(pipeline: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[int, int], bool]]:
    """The scales of a test pipeline in its order, each plain and, where it says so, flipped."""
    [augment] = [step for step in pipeline if step["type"] == "MultiScaleFlipAug"]
    scale, ratios = augment["img_scale"], augment.get("img_ratios")
    if ratios is not None:
        scales = [tuple(int(side * ratio) for side in scale) for ratio in ratios]
    else:
        scales = [tuple(scale)] if isinstance(scale[0], int) else [tuple(one) for one in scale]
    flips = (False, True) if augment.get("flip") else (False,)
    return [((longer, shorter), flip) for longer, shorter in scales for flip in flips]


def run_looks(model: Segmentor, looks: Sequence[tuple[tuple[int, int], bool]], image: np.ndarray) -> Arrays:
    """Every scale, plain and flipped; the mean of the probabilities decides."""
    arrays: Arrays = {}
    sizes, total = [], torch.zeros(())
    for index, (scale, is_flipped) in enumerate(looks):
        images = model.preprocess([image], dataclasses.replace(model.config.preprocess, scale=scale))
        if is_flipped:
            images = dataclasses.replace(images, pixels=images.pixels.flip(3))
        with torch.inference_mode():
            [probability] = probabilities(model, images)
        probability = probability.flip(2) if is_flipped else probability
        arrays[f"tta{index}.input"] = images.pixels.contiguous().numpy()
        arrays[f"tta{index}.prob"] = probability[None].contiguous().numpy()
        sizes.append((*images.pixels.shape[2:], int(is_flipped)))
        total = total + probability
    arrays["tta.sizes"] = np.array(sizes)
    arrays["input"] = arrays["tta0.input"][0]
    arrays["label_map"] = total.argmax(dim=0).to(torch.uint8)[None].numpy()
    return arrays


def batch_of(source: Mapping[str, Any]) -> Images:
    """The batch of a case; all of its images have one size, and had one before."""
    inputs, size_hw = pixels(source), (source["height"], source["width"])
    height, width, *_ = source.get("ori_shape", size_hw)
    return Images(inputs, torch.tensor([size_hw] * len(inputs)), ((height, width),) * len(inputs))


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
    name = "head.semantic" if isinstance(head, Mask2FormerHead) else "head.logits"
    handles.append(head.register_forward_hook(keep(name)))
    yield arrays
    for handle in handles:
        handle.remove()


def heads(model: Segmentor, images: Images) -> Arrays:
    """What `forward` leaves out: auxiliary logits; the queries after each layer and the maps that they look at."""
    features = model.backbone(images.pixels)
    if isinstance(model.head, UperNetHead):
        logits = model.head.auxiliary_logits(features)
        return {} if logits is None else {"aux.logits": logits.contiguous().numpy()}
    if not isinstance(model.head, Mask2FormerHead):
        return {}
    decoded = model.head.pixel_decoder(features)
    arrays = {f"pixel.memory{i}": x.contiguous().numpy() for i, x in enumerate(decoded.memory)}
    arrays["pixel.mask_feature"] = decoded.mask_features.contiguous().numpy()
    for i, output in enumerate(model.head.layer_outputs(features)):
        arrays[f"layer{i}.cls"] = output.class_logits.numpy()
        arrays[f"layer{i}.mask"] = output.mask_logits.contiguous().numpy()
    return arrays


def results(model: Segmentor, images: Images) -> Arrays:
    """Scores at the size of the input, probabilities at the original size, and the label maps."""
    at_input = torch.stack([whole(scores, scores.input_hw) for scores in model.run(images)])
    found = model.postprocess(model.run(images), images)
    return {
        "logits_input_size": at_input.numpy(),
        "prob_ori_size": torch.stack(probabilities(model, images)).numpy(),
        "label_map": torch.stack([result.label_map for result in found]).numpy(),
    }


def probabilities(model: Segmentor, images: Images) -> list[Tensor]:
    """The (K, Ho, Wo) softmax of the scores of each image at its original size."""
    return [whole(scores).softmax(dim=0) for scores in model.run(images)]


def whole(scores: ScoreMap, size_hw: tuple[int, int] | None = None) -> Tensor:
    """All strips of a score map, put together."""
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
