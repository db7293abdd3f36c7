"""Filling a model with the tensors of a checkpoint: every one, each where it belongs, or an error that lists the rest.

Models are built without memory (meta device) and take the tensors over, so that loading needs about one copy.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from internimage.backbones import BackboneConfig, CompositeInternImage, InternImage
from internimage.data.labels import rows_22k_to_1k
from internimage.errors import CheckpointMismatch
from internimage.flow import Checkpoint, Network, TaskConfig, TaskModel

log = logging.getLogger(__name__)
# Mapped pages count as memory in use until the file is closed, so tensors are copied in portions of this size.
PORTION_BYTES = 2**30
# Fewest parameters of a block of the smallest kind, and of a layer in a head.
BLOCK_TENSORS, LAYER_TENSORS = 10, 2
FIRST_LAYER = re.compile(r"(^|\.)patch_embed\.conv1\.weight$")
ADAPTED_FROM = (1, 3)


def check_description(config: TaskConfig | BackboneConfig, checkpoint: Checkpoint) -> None:
    """Raise if a described model has more layers than the tensors at hand can fill; nothing is built for it then.

    Raises:
        ValueError: the description and the tensors cannot belong together.
    """
    blocks, layers = config.num_blocks, 0 if isinstance(config, BackboneConfig) else config.num_head_layers
    held = len(checkpoint.shapes)
    if BLOCK_TENSORS * blocks + LAYER_TENSORS * layers > held:
        raise ValueError(
            f"the file describes a model of {blocks} blocks and {layers} layers in its head, but holds {held} tensors, "
            "too few for it; it is damaged or its description is of another model"
        )


def fill(
    model: Network,
    checkpoint: Checkpoint,
    names: Mapping[str, str],
    *,
    new_classes: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Give a model on the meta device the weights of a checkpoint.

    Args:
        model: takes the tensors over.
        checkpoint: its names must be the model's, no fewer and no more.
        names: our names of its tensors and the original's.
        new_classes: start the layers whose rows are the classes afresh (for 21,841 to 1000 classes: take the rows of
            the same classes).
        dtype: floating type of the model, None for the file's.
        device: where the model goes.

    Raises:
        CheckpointMismatch: entries are missing, unexpected or of the wrong shape.
        ValueError: weights are NaN or infinite.
    """
    names = {ours: key for ours, key in names.items() if not _is_unused(ours, model)}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    rows = _class_rows(names, checkpoint.shapes, expected) if new_classes else None
    fresh = _fresh_scales(names, expected)
    if new_classes and rows is None:
        others = {k for k, name in names.items() if checkpoint.shapes[name] == expected.get(k)}
        fresh |= {key for key in expected if _is_class_layer(model, key) and key not in others}
    wanted = {key: name for key, name in names.items() if key not in fresh}
    _compare(model, checkpoint, wanted, {key: shape for key, shape in expected.items() if key not in fresh}, rows)

    state: dict[str, Tensor] = {key: _initial(key, expected[key], model, dtype, device) for key in fresh}
    broken: list[str] = []
    for portion in _portions(list(wanted), expected):
        tensors = checkpoint.open()
        for key in portion:
            given = tensors[wanted[key]]
            value = _fitted(model, key, given, expected[key], rows)
            # The sum tells whether all values are finite, without another tensor.
            if value.is_floating_point() and not math.isfinite(value.sum(dtype=torch.float64).item()):
                broken.append(key)
            target = dtype if dtype is not None and value.is_floating_point() else given.dtype
            value = value.detach().to(device=device, dtype=target, copy=not checkpoint.in_memory)
            state[key] = value.contiguous()
        del tensors
    if broken:
        raise ValueError(
            f"{checkpoint.source} holds NaN or infinite values in {len(broken)} tensors, first "
            f"{', '.join(broken[:3])}; the training diverged or the file is damaged"
        )
    model.load_state_dict(state, assign=True)


def _fitted(model: Network, key: str, value: Tensor, expected: tuple[int, ...], rows: Tensor | None) -> Tensor:
    """Return a weight as the model takes it: without its center point, for its channels, for its classes."""
    value = remove_center(key, value, _backbone(model).config)
    if is_adapted(key, tuple(value.shape), expected):
        value = adapt_first_layer(value.float(), expected[1])
    return value[rows] if rows is not None and _is_class_layer(model, key) else value


def _is_class_layer(model: Network, key: str) -> bool:
    return isinstance(model, TaskModel) and model.class_layers.match(key) is not None


def _backbone(model: Network) -> InternImage | CompositeInternImage:
    return model if isinstance(model, InternImage) else model.backbone


def _compare(
    model: Network,
    checkpoint: Checkpoint,
    names: Mapping[str, str],
    expected: Mapping[str, tuple[int, ...]],
    rows: Tensor | None,
) -> None:
    """Raise with the full list if the checkpoint's entries are not the model's."""
    missing = [key for key in expected if key not in names]
    unexpected = [key for key in names if key not in expected]
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    for key, name in names.items():
        if key in expected:
            given = torch.empty(checkpoint.shapes[name], device="meta")
            shape = tuple(_fitted(model, key, given, expected[key], rows).shape)
            if shape != expected[key]:
                wrong.append((key, expected[key], shape))
    if missing or unexpected or wrong:
        raise CheckpointMismatch(
            checkpoint.source, missing, unexpected, wrong, _hint(model, missing, unexpected, wrong)
        )


def _hint(model: Network, missing: Sequence[str], unexpected: Sequence[str], wrong: Sequence[tuple]) -> str:
    """Say what the disagreement usually means."""
    others = [*missing, *unexpected, *(key for key, _, _ in wrong)]
    if others and all(FIRST_LAYER.search(key) for key in others):
        return "Only the channels of the input differ: give the weights' in_chans (3 or 1 can be adapted)."
    if all(_is_class_layer(model, key) for key in others):
        return "Only the classes differ: give num_classes to start their layer afresh."
    if all(key.rsplit(".", 1)[-1].startswith("gamma") for key in others):
        return "Only the branch scales differ: give layer_scale (None for none)."
    if not missing and len(wrong) > 10:
        return "Most shapes differ: the checkpoint is of another size."
    return ""


def remove_center(key: str, tensor: Tensor, config: BackboneConfig) -> Tensor:
    """Drop the rows of the center point from an offset or mask layer that was trained with it.

    Layers that lack the center already, and every other parameter, come back unchanged, so that nothing is dropped
    twice.

    Args:
        key: name of the parameter.
        tensor: its value.
        config: the backbone it is for.
    """
    match = re.search(r"levels\.(\d)\.blocks\.\d+\.dcn\.(offset|mask)\.(?:weight|bias)$", key)
    if match is None or not config.remove_center:
        return tensor
    values = 2 if match[2] == "offset" else 1
    groups, points = config.groups[int(match[1])], config.kernel_size**2
    if tensor.shape[0] != groups * points * values:
        return tensor
    rows = tensor.unflatten(0, (groups, points, values))
    center = points // 2
    return torch.cat([rows[:, :center], rows[:, center + 1 :]], dim=1).flatten(0, 2)


def is_adapted(key: str, given: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a weight is that of a first layer which differs in its channels only, and can be adapted."""
    return (
        bool(FIRST_LAYER.search(key))
        and len(given) == len(expected) == 4
        and given != expected
        and given[1] in ADAPTED_FROM
        and (given[0], *given[2:]) == (expected[0], *expected[2:])
    )


def adapt_first_layer(weight: Tensor, channels: int) -> Tensor:
    """Return the first layer for another number of channels.

    For one channel the weights of RGB are summed, so that a gray image gives what its three equal channels would give.
    For any other number they are repeated, channel after channel, and scaled by 3 / C, so that sums keep their size.

    Args:
        weight: (O, C, k, k) with C = 3 or 1.
        channels: the number wanted.

    Source: the rule is that of timm (`adapt_input_conv`), so that the same weights start the same way there and here.

    Example:
        >>> import torch
        >>> adapt_first_layer(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1), 4).flatten().tolist()
        [0.75, 1.5, 2.25, 0.75]
    """
    given = weight.shape[1]
    if channels == given:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-channels // given)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (given / channels)


def _is_unused(key: str, model: Network) -> bool:
    """Whether the original keeps this parameter without using it: second norms where another arrangement wins."""
    config = _backbone(model).config
    ignored = config.res_post_norm and (config.post_norm or config.layer_scale is not None)
    return ignored and ".res_post_norm" in key


def _fresh_scales(names: Mapping[str, str], expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Return the branch scales of the model if the checkpoint has none at all; they start at `layer_scale`."""
    scales = {key for key in expected if key.rsplit(".", 1)[-1] in ("gamma1", "gamma2")}
    if scales and not scales & set(names):
        log.info("the checkpoint has no branch scales; they start at layer_scale")
        return scales
    return set()


def _class_rows(
    names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> Tensor | None:
    """Return the rows to take from a 21,841-way head for the 1000 classes, or None for any other change."""
    key = "head.classifier.weight"
    if key not in names or shapes[names[key]][0] != 21841 or expected[key][0] != 1000:
        return None
    return torch.tensor(rows_22k_to_1k())


def _initial(
    key: str,
    shape: tuple[int, ...],
    model: Network,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> Tensor:
    """Return the start value of a parameter that the checkpoint does not give."""
    value = torch.empty(shape, dtype=dtype or torch.float32, device=device)
    if key.rsplit(".", 1)[-1].startswith("gamma"):
        return value.fill_(_backbone(model).config.layer_scale or 0.0)
    if key.endswith("bias"):
        return value.fill_(model.class_bias if isinstance(model, TaskModel) else 0.0)
    return nn.init.trunc_normal_(value, std=0.02)


def _portions(keys: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Cut the keys into runs of about `PORTION_BYTES` each."""
    ends = itertools.accumulate(4 * math.prod(shapes[key]) for key in keys)
    for _, group in itertools.groupby(zip(keys, ends, strict=True), lambda pair: (pair[1] - 1) // PORTION_BYTES):
        yield [key for key, _ in group]
