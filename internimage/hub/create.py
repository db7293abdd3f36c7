"""`internimage.create`: from the name of an architecture to a model, fresh or on given weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

from internimage import tasks
from internimage.backbones import VARIANTS, BackboneConfig, InternImage
from internimage.backbones.choice import Wanted, merged_backbone
from internimage.backbones.original.settings import backbone_from_settings
from internimage.backbones.original.shapes import infer_backbone
from internimage.checkpoints.catalog import info
from internimage.checkpoints.checkpoint import backbone_of
from internimage.checkpoints.class_rows import in_order_of_names
from internimage.checkpoints.foreign import about
from internimage.data.images.normalize import Normalization
from internimage.errors import UnknownName, printable
from internimage.flow import ALL_LEVELS, Checkpoint, RunOptions, TaskConfig, TaskModel
from internimage.hub.load import filled, refuse
from internimage.hub.opening import Opened, open_checkpoint

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from internimage.backbones.config import SizeName
    from internimage.hub.loaded import CreateOptions, Head, LoadedModel


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
    head: Head | None = None,
    preprocess: Normalization | None = None,
    in_chans: int | None = None,
    layer_scale: float | Literal["published"] | None = "published",
    drop_path_rate: float | None = None,
    out_indices: tuple[int, ...] | None = None,
    frozen_stages: int = -1,
    activation_checkpointing: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    offline: bool = False,
    backend: str = "auto",
) -> InternImage | TaskModel[Any]:
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
            see `checkpoints.fill.adapt_first_layer`; preprocessing gets the average of the RGB statistics.
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
    task = tasks.of_architecture(architecture)
    if task is None and architecture not in VARIANTS:
        names = [name for task in tasks.every() for name in task.architectures]
        raise UnknownName("architecture", architecture, [*names, *VARIANTS], "Checkpoints: internimage.load(...).")
    given = {"in_chans": in_chans, "drop_path_rate": drop_path_rate}
    changes: dict[str, float | None] = {name: value for name, value in given.items() if value is not None}
    if layer_scale != "published":
        changes["layer_scale"] = layer_scale
    run = RunOptions(frozen_stages=frozen_stages, activation_checkpointing=activation_checkpointing, backend=backend)
    opened = None if weights is None else open_checkpoint(weights, ema=ema, cache_dir=cache_dir, offline=offline)
    if task is None:
        of_models = dict(
            backbone=backbone, num_classes=num_classes, class_names=class_names, head=head, preprocess=preprocess
        )
        refuse(of_models, f"the backbone {architecture}")
        config = merged_backbone(architecture, _backbone_config(opened), changes)
        levels = ALL_LEVELS if out_indices is None else tuple(out_indices)
        build = partial(InternImage, config, out_indices=levels, **run)
        return build() if opened is None else filled(build, config, opened.checkpoint)
    refuse(dict(out_indices=out_indices), f"a {architecture}")
    names = None if class_names is None else tuple(class_names)
    wanted = Wanted(architecture, backbone, num_classes, names, changes)
    choose = partial(task.create, wanted, head=head, preprocess=preprocess)
    if opened is None:
        return task.build(choose(on=None, backbone=None), **run)
    with about(opened.checkpoint.source):
        stored = task.recognize(opened.checkpoint, opened.row, None)
    if stored is None:
        with about(opened.checkpoint.source):
            config = choose(on=None, backbone=_backbone_config(opened))
        return _on_backbone(config, opened.checkpoint, run)
    config = choose(on=stored, backbone=stored.backbone)
    new_classes = config.rows != stored.rows
    model = filled(partial(task.build, config, **run), config, opened.checkpoint, new_classes=new_classes)
    in_order_of_names(model, stored.class_names)
    return model


def _on_backbone(config: TaskConfig, checkpoint: Checkpoint, run: RunOptions) -> TaskModel[Any]:
    """Build a model with a fresh head on the backbone of another checkpoint."""
    # The weights first: they show whether the backbone they describe is worth the memory of a model.
    part = filled(partial(InternImage, config.backbone, **run), config.backbone, checkpoint)
    model = tasks.of_config(config).build(config, **run)
    if not isinstance(model.backbone, InternImage):
        source = printable(checkpoint.source)
        raise ValueError(f"{source} holds one backbone; a composite takes weights of its own kind only")
    model.backbone.load_state_dict(part.state_dict(), assign=True)
    return model


def _backbone_config(opened: Opened | None) -> BackboneConfig | None:
    """Return the backbone that a checkpoint holds, alone or as a part of a model; None without a checkpoint.

    Raises:
        ValueError: nothing describes it.
    """
    if opened is None:
        return None
    checkpoint, row = opened
    with about(checkpoint.source):
        if checkpoint.config is not None:
            stored = checkpoint.config
            return stored if isinstance(stored, BackboneConfig) else stored.backbone
        published = None if row is None else info(row).backbone_config
        if published is not None and not checkpoint.stated.is_folder:
            return published
        settings = checkpoint.stated.settings
        if settings is not None:
            return backbone_from_settings(settings["model"].get("backbone") or {} if "model" in settings else settings)
        return infer_backbone(backbone_of(checkpoint).shapes, checkpoint.source)[1]
