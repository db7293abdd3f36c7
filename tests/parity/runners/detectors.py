"""Cases of whole detectors: maps, proposals or queries, objects, losses and gradients, in float32 on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from internimage.backbones import CompositeInternImage
from internimage.detection import DINO, RCNN
from internimage.detection.dino.denoising import Noise
from internimage.detection.original.settings import preprocess_from_pipeline
from internimage.detection.preprocess import prepare
from internimage.detection.rcnn.loss import rpn_losses
from internimage.detection.rcnn.roi_heads import region_levels
from internimage.ops.masks import paste_masks
from internimage.types import Detections, DetectionTargets, Images
from runners.seeded import build, gradient_norms, photo, photos, pixels, stored_inputs

Arrays = dict[str, Any]


def run(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All stations of a case, from the pixels or from the photo."""
    model, stored = build(manifest), stored_inputs(manifest)
    if "grad_norm_names" in manifest:
        arrays = train(model, manifest, stored)
    else:
        with torch.inference_mode():
            images = read(model, manifest)
            arrays = two_stages(model, images, stored) if isinstance(model, RCNN) else queries(model, images)
            if photo(manifest["input"]) is not None:
                arrays["input"] = images.pixels[0]
    return {name: np.asarray(value) for name, value in arrays.items()}


def run_preprocess(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The pixels of photos of many sizes."""
    return photos(manifest, lambda image, pipeline: prepare([image], preprocess_from_pipeline(pipeline)))


def read(model: RCNN | DINO, manifest: Mapping[str, Any]) -> Images:
    """The batch of a case; scale factors may lead to original sizes that are no whole numbers."""
    source = manifest["input"]
    image = photo(source)
    if image is not None:
        return model.preprocess([image])
    sizes = [(int(h), int(w)) for h, w, *_ in source["img_shapes"]]
    factors = source.get("scale_factors", [source.get("scale_factor", 1.0)] * len(sizes))
    original = []
    for (height, width), factor in zip(sizes, factors, strict=True):
        x, y = (factor[0], factor[1]) if isinstance(factor, Sequence) else (factor, factor)
        sides = (height / y, width / x)
        original.append(tuple(round(side) if abs(side - round(side)) < 1e-3 else side for side in sides))
    return Images(pixels(source), torch.tensor(sizes), tuple(original))


def two_stages(model: RCNN, images: Images, stored: Mapping[str, np.ndarray]) -> Arrays:
    """Backbone, pyramid, proposals, heads on the stored regions, objects."""
    features = model.backbone(images.pixels).maps
    maps = model.neck(features)
    raw = model.rpn(maps)
    arrays: Arrays = {f"backbone{i}": x for i, x in enumerate(features)} | {f"fpn{i}": x for i, x in enumerate(maps)}
    arrays |= {f"rpn_cls{i}": x for i, x in enumerate(raw.logits)}
    arrays |= {f"rpn_reg{i}": x for i, x in enumerate(raw.deltas)}
    proposals = model.rpn.propose(raw, images.valid_hw, model.config.rpn.test)
    if "rois" in stored:
        arrays |= heads(model, maps, torch.from_numpy(stored["rois"]))
    for i, result in enumerate(results(model, images)):
        prefix = f"img{i}." if len(images) > 1 else ""
        boxes, scores = proposals.of(i)
        arrays[f"{prefix}proposals"] = torch.cat([boxes, scores[:, None]], dim=1)
        arrays |= objects(result, prefix)
    return arrays


def heads(model: RCNN, maps: Sequence[Tensor], rois: Tensor) -> Arrays:
    """What every head says of given regions."""
    config = model.config
    arrays: Arrays = {"roi_levels": region_levels(rois, len(model.backbone.strides), config.roi_finest_scale)}
    for i, head in enumerate(model.box_heads):
        prefix = f"s{i}." if len(model.box_heads) > 1 else ""
        features = model.region_features(maps, rois, config.roi_size)
        logits, deltas = head(features)
        arrays |= {f"{prefix}roi_feats": features, f"{prefix}bbox_cls": logits, f"{prefix}bbox_reg": deltas}
        if config.mask is not None:
            drawn = model.mask_heads[i](model.region_features(maps, rois, config.mask.roi_size))
            arrays[f"{prefix}mask_logits"] = drawn
    return arrays


def queries(model: DINO, images: Images) -> Arrays:
    """Backbone, mapper, encoder, choice of queries, decoder, objects."""
    arrays: Arrays = {}
    if isinstance(model.backbone, CompositeInternImage):
        both = model.backbone.forward_both(images.pixels)
        arrays |= {f"backbone{k}.{i}": x for k, part in enumerate(both) for i, x in enumerate(part.maps)}
        features = both[1].maps
    else:
        features = model.backbone(images.pixels).maps
        arrays |= {f"backbone{i}": x for i, x in enumerate(features)}
    maps = model.neck(features)
    memory = model.encode(maps, images.valid_hw, images.pixels)
    cells, proposals = model.transformer.propose(memory)
    selected = model.select(memory)
    start, reference = model.start(selected)
    hidden, references = model.transformer.decode(start, reference, memory, list(model.regressors)[:-1])
    layers = model.refine(start, reference, memory)
    arrays |= {f"neck{i}": x for i, x in enumerate(maps)}
    arrays |= {
        "encoder.memory": memory.cells,
        "encoder.output_memory": cells,
        "encoder.output_proposals": proposals.nan_to_num(posinf=1e9),
        "encoder.cls": model.classifiers[-1](cells),
        "encoder.reg": model.regressors[-1](cells),
        "topk.indices": selected.indices,
        "topk.score": selected.logits,
        "topk.anchor": selected.box_logits.sigmoid(),
        "decoder.hs": torch.stack(hidden),
        "decoder.references": torch.stack(references),
    }
    arrays |= {f"layer{i}.cls": x.logits for i, x in enumerate(layers)}
    arrays |= {f"layer{i}.box": x.boxes for i, x in enumerate(layers)}
    for i, result in enumerate(results(model, images)):
        arrays |= objects(result, f"img{i}." if len(images) > 1 else "")
    return arrays


def results(model: RCNN | DINO, images: Images) -> list[Detections]:
    """The objects of each image; where scale factors give sides that are no whole numbers, masks have the nearest."""
    raw = model(images.pixels, images.valid_hw)
    if raw.mask_probabilities is None or all(isinstance(side, int) for size in images.original_hw for side in size):
        return model.postprocess(raw, images)
    found = model.postprocess(raw._replace(mask_probabilities=None), images)
    for i, result in enumerate(found):
        size_hw = (round(images.original_hw[i][0]), round(images.original_hw[i][1]))
        masks = paste_masks(raw.mask_probabilities[raw.image == i], result.boxes_xyxy, size_hw)
        found[i] = dataclasses.replace(result, run_length_masks=masks)
    return found


def objects(result: Detections, prefix: str) -> Arrays:
    """The objects of one image."""
    arrays = {"det_boxes": result.boxes_xyxy, "det_scores": result.scores, "det_labels": result.labels}
    if result.run_length_masks is not None:
        arrays |= {"det_masks": result.masks, "det_mask_area": result.run_length_masks.areas}
    return {prefix + name: value for name, value in arrays.items()}


def train(model: RCNN | DINO, manifest: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> Arrays:
    """Every loss, their sum, and the norm of the gradient of every parameter."""
    model.train()
    images, targets = read(model, manifest), read_targets(manifest, stored)
    if isinstance(model, RCNN):
        losses = model.loss(images, targets, choose=lambda candidates, number: candidates[:number])
        arrays = rpn_levels(model, images, targets)
    else:
        noise = read_noise(model, stored)
        losses = model.loss(images, targets, noise=noise)
        arrays = denoising(model, images, targets, noise)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    arrays |= {f"loss.{name}": value.detach() for name, value in losses.items() if not name.startswith("loss_rpn")}
    return {**arrays, "total": total.detach(), "grad_norm": gradient_norms(model, model.config.kind, manifest)}


def read_targets(manifest: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> list[DetectionTargets]:
    targets = []
    for i in range(manifest["input"]["batch"]):
        masks = None
        if f"gt_masks{i}.bits" in stored:
            shape = tuple(int(n) for n in stored[f"gt_masks{i}.shape"])
            bits = np.unpackbits(stored[f"gt_masks{i}.bits"])[: int(np.prod(shape))].reshape(shape)
            masks = torch.from_numpy(bits).bool()
        boxes, labels = (torch.from_numpy(stored[f"gt_{name}{i}"]) for name in ("boxes", "labels"))
        targets.append(DetectionTargets(boxes, labels, masks))
    return targets


def rpn_levels(model: RCNN, images: Images, targets: list[DetectionTargets]) -> Arrays:
    """The losses of the proposal network, level by level."""
    divisor = model.config.preprocess.divisor
    with torch.no_grad():
        raw = model.rpn(model.neck(model.backbone(images.pixels).maps))
        losses = rpn_losses(
            model.rpn, raw, images.valid_hw, targets, divisor=divisor, choose=lambda candidates, n: candidates[:n]
        )
    named = zip(("loss_rpn_cls", "loss_rpn_bbox"), losses, strict=True)
    return {f"loss.{name}.{i}": value for name, levels in named for i, value in enumerate(levels)}


def read_noise(model: DINO, stored: Mapping[str, np.ndarray]) -> Noise | None:
    """The recorded random numbers of the denoising queries; the original draws none for a noise of strength zero."""
    names = sorted((name for name in stored if name.startswith("rand.")), key=lambda name: int(name.split(".")[1]))
    if not names:
        return None
    numbers = iter(torch.from_numpy(stored[name]) for name in names)
    config = model.config.denoising
    draw = labels = signs = shifts = None
    if config.label_noise > 0:
        draw, wrong = next(numbers), next(numbers)
        labels = torch.zeros(len(draw), dtype=torch.int64)
        labels[draw < 0.5 * config.label_noise] = wrong
    if config.box_noise > 0:
        signs, shifts = next(numbers).float() * 2 - 1, next(numbers)
    rows = len(draw if draw is not None else shifts)
    return Noise(
        torch.ones(rows) if draw is None else draw,
        torch.zeros(rows, dtype=torch.int64) if labels is None else labels,
        torch.ones(rows, 4) if signs is None else signs,
        torch.zeros(rows, 4) if shifts is None else shifts,
    )


def denoising(model: DINO, images: Images, targets: list[DetectionTargets], noise: Noise | None) -> Arrays:
    """The denoising queries; the original feeds those of a composite twice, once for each backbone."""
    made = model.denoise(targets, images.valid_hw, model.config.num_queries, noise)
    if made is None:  # no image shows an object
        return {}
    repeats = model.config.num_backbones
    return {
        "dn.label_query": made.queries.detach().repeat(repeats, 1, 1),
        "dn.bbox_query": made.box_logits.repeat(repeats, 1, 1),
        "dn.attn_mask": ~made.allowed,
        "dn.pad_size": np.int64(made.number),
        "dn.num_groups": np.int64(made.groups),
    }
