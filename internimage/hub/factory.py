"""From a name to a model: `create` builds an architecture, `load` a checkpoint that is ready to predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import torch
from torch import Tensor

from internimage.backbones import VARIANTS, BackboneConfig, InternImage
from internimage.checkpoints.catalog import CatalogEntry, find, not_there
from internimage.checkpoints.checkpoint import Checkpoint, shapes_of, unpack
from internimage.checkpoints.class_rows import in_order_of_names
from internimage.checkpoints.fill import fill
from internimage.checkpoints.foreign import about, check_description
from internimage.checkpoints.header import MODELS, AnyConfig, AnyModel, AnyTaskConfig
from internimage.checkpoints.read import read_checkpoint
from internimage.classification import PreprocessConfig
from internimage.classification.head import HeadKind
from internimage.classification.original.settings import classifier_from_settings
from internimage.detection import DETECTORS
from internimage.detection import PreprocessConfig as DetectionPreprocess
from internimage.detection.creation import DetectorWish
from internimage.detection.original.settings import detector_from_settings
from internimage.errors import UnknownName, printable
from internimage.hub.choices import ClassifierWish, class_rows, merged_backbone, reading_as, with_classes
from internimage.hub.loaded import LoadedModel
from internimage.hub.recognition import (
    backbone_config,
    classifier_config,
    detector_config,
    is_detector,
    is_segmentor,
    segmentor_config,
)
from internimage.segmentation import PreprocessConfig as SegmentationPreprocess
from internimage.segmentation.creation import SEGMENTORS, SegmentorWish
from internimage.segmentation.model import HeadConfig
from internimage.segmentation.original.settings import segmentor_from_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from internimage.backbones.config import SizeName
    from internimage.hub.loaded import CreateOptions

CLASSIFIER = "classifier"
ARCHITECTURES = (CLASSIFIER, *DETECTORS, *SEGMENTORS, *VARIANTS)


@overload  # a size is a str, too; the first overload that fits counts
def create(  # pyright: ignore[reportOverlappingOverload]  # as said above
    architecture: SizeName, **options: Unpack[CreateOptions]
) -> InternImage: ...
@overload
def create(architecture: str, **options: Unpack[CreateOptions]) -> LoadedModel: ...
def create(
    architecture: str,
    *,
    backbone: str | BackboneConfig | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    weights: str | PathLike[str] | None = None,
    ema: bool | None = None,
    head: HeadKind | HeadConfig | None = None,
    preprocess: PreprocessConfig | DetectionPreprocess | SegmentationPreprocess | None = None,
    in_chans: int | None = None,
    layer_scale: float | Literal["published"] | None = "published",
    drop_path_rate: float | None = None,
    out_indices: tuple[int, ...] | None = None,
    frozen_stages: int = -1,
    activation_checkpointing: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    offline: bool = False,
    backend: str = "auto",
) -> AnyModel | LoadedModel:
    """Build a model, fresh or on given weights, in training mode.

    Args:
        architecture: the name of a size for a bare backbone ("internimage_b"), "classifier", a detector: "faster_rcnn",
            "mask_rcnn", "cascade_rcnn", "cascade_mask_rcnn" or "dino", or a segmentor: "upernet", "segformer" or
            "mask2former".
        backbone: size or settings of the model's backbone; for "dino" also a size with "cb_" in front, which makes a
            composite of two.
        num_classes: classes of the model; None takes those of `class_names`, of the weights, or 1000 for a classifier.
            Another number than the weights have starts the last layer afresh.
        class_names: names of the classes. Those of the weights in another order take their rows along; others rename
            the classes of the weights.
        weights: name of a checkpoint, weight file or folder; a backbone, and a detector or a segmentor on a
            classifier's weights, takes its part.
        ema: which weights of a training file, see `read_checkpoint`.
        head: kind of a classifier's head, or settings of a segmentor's; None takes the weights', or the published one.
        preprocess: how the model reads images; None takes the weights', or the default.
        in_chans: channels of the input, None for the weights' or 3. Weights of 3 channels (or 1) are adapted to others,
            see `checkpoints.first_layer`; preprocessing gets the average of the RGB statistics for each channel.
        layer_scale: start value of the branch scales, None for no scales; "published" takes the weights' or the size's
            (detectors and segmentors: 1.0 for T to XL).
        drop_path_rate: stochastic depth of the last block, 0..1; None keeps the weights' or the settings'.
        out_indices: levels that a bare backbone returns, None for all four.
        frozen_stages: stem and levels that are not trained, see `InternImage`.
        activation_checkpointing: recompute blocks in the backward pass.
        cache_dir: where downloads are kept.
        offline: use no network.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Returns:
        A `Classifier`, a detector (`RCNN`, `DINO`), a `Segmentor` or an `InternImage` backbone.

    Raises:
        UnknownName: no such architecture, size or checkpoint.
        ValueError: the arguments contradict each other or the weights.
        CheckpointMismatch: the weights do not fit; lists every difference.

    Example:
        >>> create("classifier", backbone="internimage_pico", num_classes=3).config.num_classes
        3
        >>> create("internimage_pico", out_indices=(3,)).channels
        (192,)
    """
    if architecture not in ARCHITECTURES:
        raise UnknownName("architecture", architecture, ARCHITECTURES, "Checkpoints: internimage.load(...).")
    given = {"in_chans": in_chans, "drop_path_rate": drop_path_rate}
    changes = {name: value for name, value in given.items() if value is not None}
    if layer_scale != "published":
        changes["layer_scale"] = layer_scale
    run: dict[str, Any] = dict(
        frozen_stages=frozen_stages, activation_checkpointing=activation_checkpointing, backend=backend
    )
    opened = None if weights is None else _open(weights, ema, cache_dir, offline)
    if architecture in VARIANTS:
        _refuse(
            dict(backbone=backbone, num_classes=num_classes, class_names=class_names, head=head, preprocess=preprocess),
            f"the backbone {architecture}",
        )
        config = merged_backbone(architecture, _backbone_of(opened), changes)
        run |= {} if out_indices is None else {"out_indices": tuple(out_indices)}
        return _build(config, opened and opened[0].backbone(), run=run)
    _refuse(dict(out_indices=out_indices), f"a {architecture}")
    names = None if class_names is None else tuple(class_names)
    if architecture != CLASSIFIER:
        kind = DetectorWish if architecture in DETECTORS else SegmentorWish
        return _dense(kind(architecture, backbone, num_classes, names, head, preprocess), opened, changes, run)
    if not (head is None or isinstance(head, str)) or not isinstance(preprocess, PreprocessConfig | None):
        raise TypeError("a classifier takes the kind of its head and a classification PreprocessConfig")
    wish = ClassifierWish(backbone, num_classes, names, head, preprocess)
    if opened is None:
        return _build(wish.fresh(changes), None, run=run)
    with about(opened[0].source):
        found = classifier_config(*opened)
    wanted = wish.on(found, changes)
    model = _build(wanted, opened[0], run=run, new_classes=wanted.num_classes != found.num_classes)
    in_order_of_names(model, found.class_names)
    return model


def load(
    name_or_path: str | PathLike[str],
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    value_range: tuple[float, float] | None = None,
    ema: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    offline: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    backend: str = "auto",
) -> LoadedModel:
    """Return a checkpoint as a model ready to predict: architecture, weights, preprocessing and class names.

    Args:
        name_or_path: a name of `list_models`, a weight file (`.safetensors`, `.pth`), or a Transformers folder.
        num_classes: None keeps the checkpoint's; 1000 of 21,841 takes the rows of the same classes; any other number
            starts the last layer afresh.
        in_chans: channels of the images, None for the checkpoint's. For another number than its 3 (or 1) the first
            layer is adapted, see `checkpoints.first_layer`.
        value_range: values of black and white in images of more than 8 bits, for example (0, 4095) for 12 bits; None
            keeps the checkpoint's, as a rule 0..65535 for 16 bits.
        ema: True for the averaged weights of a training file, False for the raw ones, None for the raw ones if any.
        settings: original settings of the architecture, for a file that does not state it and is of no published size.
        cache_dir: where downloads are kept, None for the user's cache.
        offline: use no network.
        dtype: floating type of the model, None for the file's.
        device: where the model goes.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Returns:
        The model in evaluation mode: a `Classifier`, a detector (`RCNN`, `DINO`) or a `Segmentor`. A file of ours that
        holds a bare backbone gives an `InternImage`; typed code opens it by `create(size, weights=file).eval()`.

    Raises:
        UnknownName: no such checkpoint; the message suggests the nearest ones.
        FileNotFoundError: the file is not there, or cannot be downloaded.
        ValueError: the file is damaged, or its model is not built by this release.
        CheckpointMismatch: the weights do not fit; lists every difference.

    Example:
        >>> import tempfile
        >>> from internimage.checkpoints.read import save_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = create("classifier", backbone="internimage_pico", class_names=["cat", "dog"])
        ...     path = save_model(model, f"{folder}/pets.safetensors")
        ...     load(path).config.class_names
        ('cat', 'dog')
    """
    checkpoint, entry = _open(name_or_path, ema, cache_dir, offline, whole=True)
    run = dict(backend=backend)
    place = dict(dtype=dtype, device=device)
    document = checkpoint.document
    if document is not None and isinstance(document.config, BackboneConfig):
        _refuse({"num_classes": num_classes, "settings": settings, "value_range": value_range}, "a bare backbone")
        bare = document.config if in_chans is None else dataclasses.replace(document.config, in_chans=in_chans)
        return cast("LoadedModel", _build(bare, checkpoint, run=run, place=place).eval())
    config = reading_as(whole_config(checkpoint, entry, settings), in_chans, value_range)
    new_classes = num_classes is not None and num_classes != config.num_classes
    if num_classes is not None:
        config = with_classes(config, num_classes)
    return cast("LoadedModel", _build(config, checkpoint, new_classes=new_classes, run=run, place=place).eval())


def from_original(settings: Mapping[str, Any], state: Mapping[str, Tensor], *, backend: str = "auto") -> AnyModel:
    """Build a model from original settings and original weights in memory; the tensors are used, not copied.

    Args:
        settings: arguments of the original classifier's constructor, its nested configuration or a `config.json`; or
            the original's model dictionary of a detector or a segmentor, or a configuration with it under "model".
        state: original names and tensors, in any published container.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Returns:
        The model in evaluation mode.

    Raises:
        ValueError: a setting is missing or not supported.
        CheckpointMismatch: the weights do not fit the settings; lists every difference.
    """
    tensors, is_part, _ = unpack(state, "the state dict", None)
    checkpoint = Checkpoint("the state dict", shapes_of(tensors), lambda: tensors, in_memory=True, is_part=is_part)
    config: AnyConfig
    if is_detector(checkpoint):
        config = detector_from_settings(settings)
    elif is_segmentor(checkpoint):
        config = segmentor_from_settings(settings)
    else:
        config = classifier_from_settings(settings)
    return _build(config, checkpoint, run=dict(backend=backend), place=dict(dtype=None)).eval()


def whole_config(
    checkpoint: Checkpoint, entry: CatalogEntry | None, settings: Mapping[str, Any] | None
) -> AnyTaskConfig:
    """Return the configuration of the model that a checkpoint holds."""
    with about(checkpoint.source):
        if is_detector(checkpoint):
            return detector_config(checkpoint, entry, settings)
        if is_segmentor(checkpoint):
            return segmentor_config(checkpoint, entry, settings)
        return classifier_config(checkpoint, entry, settings)


def _backbone_of(opened: tuple[Checkpoint, CatalogEntry | None] | None) -> BackboneConfig | None:
    """Return the configuration of the backbone in a checkpoint, None where none is given."""
    if opened is None:
        return None
    with about(opened[0].source):
        return backbone_config(*opened)


def _open(
    name_or_path: str | PathLike[str],
    ema: bool | None,
    cache_dir: str | PathLike[str] | None,
    offline: bool,
    *,
    whole: bool = False,
) -> tuple[Checkpoint, CatalogEntry | None]:
    """Find, download and open a checkpoint; also return the catalog row it is named like.

    Args:
        name_or_path: a file, a folder or a name of the catalog, in this order.
        ema: see `read_checkpoint`.
        cache_dir: where downloads are kept.
        offline: use no network.
        whole: refuse rows whose model this release does not build, before anything is downloaded.
    """
    path = Path(name_or_path)
    entry = find(path.name) if path.exists() else find(str(name_or_path))
    if entry is not None and not (entry.is_built if whole else entry.backbone_config):
        raise ValueError(_not_built(entry))
    if path.exists():
        return read_checkpoint(path, ema=ema), entry
    if entry is None:
        raise not_there(str(name_or_path))
    from internimage.checkpoints.download import fetch  # the Hub's client takes long to import

    return read_checkpoint(fetch(entry, cache_dir=cache_dir, offline=offline), ema=ema), entry


def _not_built(entry: CatalogEntry) -> str:
    """Say what a row needs that this release lacks, and what can be had of it."""
    text = (
        f"{entry.name} is for {entry.task.replace('_', ' ')} ({entry.backbone}, {entry.method}); this release builds "
        "InternImage classifiers, detectors, segmentors and backbones."
    )
    if entry.backbone_config is not None and entry.url is not None:
        text += f" Its backbone can be had: create({entry.backbone!r}, weights={entry.name!r})"
    return text


def _build(
    config: AnyConfig,
    checkpoint: Checkpoint | None,
    *,
    run: Mapping[str, Any],
    place: Mapping[str, Any] | None = None,
    new_classes: bool = False,
) -> AnyModel:
    """Build a model; with weights, without memory of its own first."""
    kind = cast("Callable[..., AnyModel]", MODELS[type(config)])  # each takes its own type of configuration
    if checkpoint is None:
        return kind(config, **run)
    with about(checkpoint.source):
        check_description(config, checkpoint)
        with torch.device("meta"):
            model = kind(config, **run)
        fill(model, checkpoint, new_classes=new_classes, **(place or {}))
    return model


def _dense(
    wish: DetectorWish | SegmentorWish,
    opened: tuple[Checkpoint, CatalogEntry | None] | None,
    changes: Mapping[str, Any],
    run: Mapping[str, Any],
) -> AnyModel:
    """Build a detector or segmentor: fresh, on weights of its kind, or on the backbone of any other checkpoint."""
    holds = is_detector if isinstance(wish, DetectorWish) else is_segmentor
    if opened is None or not holds(opened[0]):
        found = _backbone_of(opened)
        config = wish.fresh(lambda size: merged_backbone(size, found, changes))
        if opened is None:
            return _build(config, None, run=run)
        # The weights first: they show whether the backbone they describe is worth the memory of a model.
        part = _build(config.backbone, opened[0].backbone(), run=run)
        model = _build(config, None, run=run)
        _give_backbone(model, part, opened[0].source)
        return model
    stored = whole_config(*opened, None)
    config = wish.on(
        stored,  # type: ignore[arg-type]  # `holds` has seen that it is of the wished kind
        lambda size: merged_backbone(size, stored.backbone, changes),
    )
    model = _build(config, opened[0], run=run, new_classes=class_rows(config) != class_rows(stored))
    in_order_of_names(model, stored.class_names)
    return model


def _give_backbone(model: AnyModel, part: AnyModel, source: str) -> None:
    """Give a fresh detector or segmentor a backbone that holds other weights."""
    assert not isinstance(model, InternImage)
    if not isinstance(model.backbone, InternImage):
        raise ValueError(f"{printable(source)} holds one backbone; a composite takes weights of its own kind only")
    model.backbone.load_state_dict(part.state_dict(), assign=True)


def _refuse(arguments: Mapping[str, Any], what: str) -> None:
    """Raise if an argument is given that means nothing here."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"{what} takes no {', '.join(given)}")
