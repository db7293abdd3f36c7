"""Old names of modules and what they held: they work for one release, with a warning that says the new name."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Old and new names below `internimage`; of several new ones the first that has what is asked for counts.
MODULES: Mapping[str, str | tuple[str, ...]] = {
    "cli.answers": ("cli.predicting.drawings", "cli.predicting.predictions"),
    "cli.bench_models": ("cli.measuring.models", "detection.speed"),
    "cli.sources": "cli.predicting.sources",
    "data.array_file": "data.images.array_file",
    "data.decoder_notes": "data.images.decoder_notes",
    "data.detection.annotation": "data.objects.annotation",
    "data.detection.augment": "detection.batches.augment",
    "data.detection.census": "data.objects.census",
    "data.detection.coco": "data.readers.coco",
    "data.detection.coco_entries": "data.readers.coco_entries",
    "data.detection.dataset": "data.objects.dataset",
    "data.detection.files": "data.untrusted.files",
    "data.detection.grouping": "detection.batches.grouping",
    "data.detection.loading": "detection.batches.loading",
    "data.detection.mask_entries": "data.readers.mask_entries",
    "data.detection.open": "data.readers.open_objects",
    "data.detection.open_images": "data.readers.open_images",
    "data.detection.pipelines": "detection.batches.pipelines",
    "data.detection.problems": "data.untrusted.problems",
    "data.detection.segmentations": "data.objects.segmentations",
    "data.detection.sizes": "data.objects.sizes",
    "data.detection.table": "data.objects.table",
    "data.detection.voc": "data.readers.voc",
    "data.detection.voc_layout": "data.readers.voc_layout",
    "data.detection.xml_tree": "data.untrusted.xml_tree",
    "data.detection.yolo": "data.readers.yolo",
    "data.fashion_mnist": "data.readers.fashion_mnist",
    "data.formats": "data.images.formats",
    "data.image_file": "data.images.image_file",
    "data.image_folder": "data.readers.folders",
    "data.image_paths": "data.images.image_paths",
    "data.normalize": "data.images.normalize",
    "data.numbers": "data.untrusted.numbers",
    "data.open": "data.readers.open_labels",
    "data.pictures": "data.images.read",
    "data.raster": "data.images.raster",
    "data.resize": "data.images.resize",
    "data.segmentation.augment": "segmentation.batches.augment",
    "data.segmentation.batches": "segmentation.batches.batches",
    "data.segmentation.census": "data.label_maps.census",
    "data.segmentation.dataset": "data.label_maps.dataset",
    "data.segmentation.label_map": "data.label_maps.label_map",
    "data.segmentation.layouts": "data.label_maps.layouts",
    "data.segmentation.open": "data.label_maps.open",
    "data.segmentation.pairing": "data.label_maps.pairing",
    "data.segmentation.photometric": "segmentation.batches.photometric",
    "data.value_range": "data.images.value_range",
    "data.video": "data.images.video",
    "detection.anchors": "detection.rcnn.anchors",
    "detection.denoising": "detection.dino.denoising",
    "detection.dino_loss": "detection.dino.loss",
    "detection.dino_transformer": "detection.dino.transformer",
    "detection.rcnn_loss": "detection.rcnn.loss",
    "detection.roi_heads": "detection.rcnn.roi_heads",
    "detection.rpn": "detection.rcnn.rpn",
    "evaluation.batches": "evaluation.run",
    "evaluation.classification": "classification.evaluate",
    "evaluation.detection.box_merging": "detection.box_merging",
    "evaluation.detection.classes": "evaluation.object_classes",
    "evaluation.detection.coco": "evaluation.coco",
    "evaluation.detection.crowd_human": "evaluation.crowd_human",
    "evaluation.detection.figures": "evaluation.object_metrics",
    "evaluation.detection.matching": "evaluation.matching",
    "evaluation.detection.measure": "detection.evaluate",
    "evaluation.detection.open_images": "evaluation.open_images",
    "evaluation.detection.predictions": "evaluation.predictions",
    "evaluation.detection.report": "detection.report",
    "evaluation.detection.test_time": "detection.tta",
    "evaluation.detection.voc": "evaluation.voc",
    "evaluation.identity": "evaluation.record_log",
    "evaluation.segmentation.confusion": "evaluation.confusion",
    "evaluation.segmentation.measure": "segmentation.evaluate",
    "evaluation.segmentation.report": "segmentation.report",
    "evaluation.segmentation.submission": "segmentation.submission",
    "evaluation.segmentation.test_time": "segmentation.tta",
    "evaluation.segmentation.worst": "segmentation.worst_images",
    "segmentation.pixel_decoder": "segmentation.mask2former.pixel_decoder",
    "training.unreadable": "data.unreadable",
    "training.busy": "training.meters",
    "training.classification.augment": "classification.batches.augment",
    "training.classification.batches": "classification.training.batches",
    "training.classification.config": "classification.training.recipe",
    "training.classification.param_groups": "training.optim",
    "training.classification.recipes": "classification.training.recipes",
    "training.classification.schedule": "recipe.schedules",
    "training.classification.start": "training.initial_weights",
    "training.classification.task": "classification.training.procedure",
    "training.console": "training.display",
    "training.dense.param_groups": "training.optim",
    "training.dense.schedule": "recipe.schedules",
    "training.dense.settings": "recipe",
    "training.dense.start": "training.initial_weights",
    "training.detection.batches": "detection.training.batches",
    "training.detection.config": "detection.training.recipe",
    "training.detection.recipes": "detection.training.recipes",
    "training.detection.task": "detection.training.procedure",
    "training.engine": "training.device",
    "training.finite": "training.meters",
    "training.overrides": "settings",
    "training.param_groups": "training.optim",
    "training.precision": "training.device",
    "training.published": "training.recipes",
    "training.randomness": "data.randomness",
    "training.result": "training.records",
    "training.schedule": "recipe.schedules",
    "training.segmentation.config": "segmentation.training.recipe",
    "training.segmentation.recipes": "segmentation.training.recipes",
    "training.segmentation.task": "segmentation.training.procedure",
    "training.setting_docs": "settings",
    "training.settings": "recipe",
    "training.since": "training.meters",
    "training.start": "training.initial_weights",
    "training.task": "recipe.task",
    "training.tasks": "training.setup",
    "training.trainer": "training.loop",
    "zoo.arrivals": "checkpoints.arrivals",
    "zoo.catalog": "checkpoints.catalog",
    "zoo.checkpoint": ("flow", "checkpoints.checkpoint"),
    "zoo.choices": "backbones.choice",
    "zoo.class_rows": "checkpoints.class_rows",
    "zoo.containers": "checkpoints.formats.containers",
    "zoo.conversion": ("hub.convert", "hub.keys"),
    "zoo.detection_rows": "detection.published",
    "zoo.detector_wish": "detection.creation",
    "zoo.document": "checkpoints.header",
    "zoo.download": "checkpoints.download",
    "zoo.factory": ("hub.create", "hub.load", "hub.opening"),
    "zoo.filling": "checkpoints.fill",
    "zoo.first_layer": "checkpoints.fill",
    "zoo.foreign": "checkpoints.foreign",
    "zoo.huggingface": ("checkpoints.formats.huggingface", "classification.original.files"),
    "zoo.inference": ("classification.original.shapes", "backbones.original.shapes"),
    "zoo.inspection": "hub.inspect",
    "zoo.loaded": "hub.loaded",
    "zoo.local": "checkpoints.local",
    "zoo.mm_config": "checkpoints.formats.openmmlab",
    "zoo.mm_values": "checkpoints.formats.openmmlab_values",
    "zoo.official": ("hub.keys", "checkpoints.rename", "classification.original.names"),
    "zoo.official_detection": "detection.original.names",
    "zoo.official_segmentation": "segmentation.original.names",
    "zoo.pickle_scan": "checkpoints.formats.pickle_scan",
    "zoo.recognition": ("tasks", "hub.building"),
    "zoo.saving": "checkpoints.save",
    "zoo.segmentation_rows": "segmentation.published",
    "zoo.segmentor_wish": "segmentation.creation",
    "zoo.settings": ("classification.original.settings", "backbones.original.settings"),
    "zoo.settings_detection": "detection.original.settings",
    "zoo.settings_dino": "detection.original.settings_dino",
    "zoo.settings_segmentation": "segmentation.original.settings",
    "zoo.torch_files": "checkpoints.formats.torch_files",
    "zoo.transfer": "checkpoints.transfer",
    "zoo.weights": ("hub.opening", "checkpoints.read", "checkpoints.save"),
}
# Packages that are gone, and where to look for what they held, first to last.
PACKAGES: Mapping[str, Sequence[str]] = {
    "data.detection": (
        "data.objects.annotation",
        "data.objects.dataset",
        "data.untrusted.problems",
        "data.readers.open_objects",
        "data.readers.coco",
        "data.readers.open_images",
        "data.readers.voc",
        "data.readers.yolo",
        "detection.batches.augment",
        "detection.batches.grouping",
        "detection.batches.loading",
        "detection.batches.pipelines",
    ),
    "data.segmentation": (
        "data.class_list",
        "data.label_maps.dataset",
        "data.label_maps.label_map",
        "data.label_maps.open",
        "segmentation.batches.augment",
        "segmentation.batches.batches",
        "segmentation.batches.photometric",
    ),
    "evaluation.detection": ("detection.evaluate", "detection.report", "detection.tta"),
    "evaluation.segmentation": (
        "segmentation.evaluate",
        "segmentation.report",
        "segmentation.tta",
        "segmentation.submission",
        "segmentation.worst_images",
        "evaluation.confusion",
    ),
    "training.classification": ("classification.training.recipe",),
    "training.dense": ("recipe",),
    "training.detection": ("detection.training.recipe",),
    "training.segmentation": ("segmentation.training.recipe",),
    "zoo": (
        "checkpoints",
        "checkpoints.catalog",
        "hub.opening",
        "checkpoints.read",
        "checkpoints.save",
        "hub.create",
        "hub.load",
        "hub.convert",
        "data.labels",
    ),
}
# Names of classes and functions that have changed, with their module where one name has become several.
NAMES: Mapping[str, str] = {
    "BadPicture": "BadImage",
    "CropShare": "CropFraction",
    "CrowdFigures": "CrowdMetrics",
    "DenseDataSettings": "SceneDataSettings",
    "DenseModelSettings": "SceneModelSettings",
    "DenseOptimizerSettings": "SceneOptimizerSettings",
    "DenseRecipe": "SceneRecipe",
    "DenseScheduleSettings": "SceneScheduleSettings",
    "Figures": "Metrics",
    "MaskedPicture": "MaskedImage",
    "Picture": "ImageInput",
    "PictureAnnotation": "ImageAnnotation",
    "PictureDataset": "ImageDataset",
    "PictureScore": "ImageScore",
    "Since": "Meters",
    "TruthClasses": "ObjectClasses",
    "build_task": "Setup",
    "classification.evaluate.evaluate": "evaluate_classification",
    "classification.training.recipe.DataSettings": "ClassificationDataSettings",
    "classification.training.recipe.ScheduleSettings": "EpochScheduleSettings",
    "coco_figures": "coco_metrics",
    "count_truth": "count_targets",
    "crowd_figures": "crowd_metrics",
    "decode_picture": "decode_image",
    "detection.box_merging.Method": "Merging",
    "detection.published.detector_of_row": "published_config",
    "detection.tta.Looking": "ViewReader",
    "detection.tta.MultiScale": "DetectionTTA",
    "lvis_figures": "lvis_metrics",
    "picture_size": "image_size",
    "published_figures": "published_metrics",
    "read_picture": "read_rgb",
    "segmentation.published.segmentor_of_row": "published_config",
    "segmentation.tta.Looking": "ScaleReader",
    "segmentation.tta.MultiScale": "SegmentationTTA",
}


def renamed(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module some of whose names live elsewhere now, or are called otherwise.

    Args:
        module: `__name__` of the module.
        homes: the module that holds each old name now.

    Example:
        >>> import pytest
        >>> get = renamed("internimage.evaluation", {"UnknownName": "internimage.errors"})
        >>> with pytest.warns(DeprecationWarning, match="internimage.errors.UnknownName"):
        ...     get("UnknownName").__name__
        'UnknownName'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = _new_name(homes[name], name)
        value = getattr(importlib.import_module(homes[name]), new)
        _warn(f"{module}.{name}", f"{homes[name]}.{new}")
        return value

    return get


class MovedModules(MetaPathFinder, Loader):
    """Finds the modules of earlier releases."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return how to load an old module, None for every other name."""
        if not _homes(fullname):
            return None
        return ModuleSpec(fullname, self, is_package=fullname.removeprefix("internimage.") in PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        """Let an old module answer with what the new ones hold."""
        homes = _homes(module.__name__)
        module.__file__ = importlib.import_module(homes[0]).__file__

        def get(name: str) -> Any:
            for home in homes:
                found, new = importlib.import_module(home), _new_name(home, name)
                if hasattr(found, new) and not name.startswith("__"):
                    _warn(f"{module.__name__}.{name}", f"{home}.{new}")
                    return getattr(found, new)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = get  # type: ignore[method-assign]  # what Python asks for a module's missing names


def install() -> None:
    """Let imports find the modules of earlier releases."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())


def _homes(fullname: str) -> list[str]:
    """Return the modules that hold what an old one held."""
    root, _, name = fullname.partition(".")
    if root != "internimage":
        return []
    homes = PACKAGES.get(name) or MODULES.get(name, ())
    homes = (homes,) if isinstance(homes, str) else homes
    return [f"internimage.{home}" for home in homes]


def _new_name(home: str, name: str) -> str:
    """Return what a name of a module that is `home` now has become."""
    return NAMES.get(f"{home.removeprefix('internimage.')}.{name}") or NAMES.get(name, name)


def renamed_keywords(**renamed: str | None) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a function take keywords of earlier releases.

    Args:
        renamed: the new name of each old one, None for one that does nothing any more.

    Example:
        >>> import pytest
        >>> @renamed_keywords(looks="tta")
        ... def evaluate(*, tta):
        ...     return tta
        >>> with pytest.warns(DeprecationWarning, match="tta"):
        ...     evaluate(looks=3)
        3
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **keywords: Parameters.kwargs) -> Result:
            for old, new in renamed.items():
                if old in keywords:
                    value = keywords.pop(old)
                    _warn(f"the argument {old} of {function.__name__}", new or "without effect")
                    if new is not None and keywords.setdefault(new, value) is not value:
                        raise TypeError(f"{function.__name__}: {old} is the old name of {new}; give the new one only")
            return function(*args, **keywords)

        return call

    return decorate


def renamed_attribute(old: str, new: str) -> property:
    """Return a property that gives an attribute under its old name."""

    def get(self: object) -> Any:
        _warn(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    return property(get)


def published_by_name(published: Mapping[str, float] | float | None, name: str) -> dict[str, float]:
    """Return published metrics by name; earlier releases took the value of one metric alone.

    Args:
        published: what the caller gave.
        name: the metric that a value alone is of.
    """
    if isinstance(published, float | int):
        _warn(f"published={published}", f"published={{{name!r}: {published}}}")
        return {name: published}
    return dict(published or {})


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is {new} now; the old name goes with the next release", DeprecationWarning, stacklevel=3)
