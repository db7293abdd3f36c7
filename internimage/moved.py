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

# Old and new package, below `internimage`, of modules that kept their names.
KEPT: Mapping[tuple[str, str], str] = {
    ("cli", "cli.predicting"): "sources",
    ("data", "data.images"): (
        "array_file decoder_notes formats image_file image_paths normalize raster resize value_range video"
    ),
    ("data", "data.readers"): "fashion_mnist",
    ("data", "data.untrusted"): "numbers",
    ("data.detection", "data.objects"): "annotation census dataset segmentations sizes table",
    ("data.detection", "data.readers"): "coco coco_entries mask_entries open_images voc voc_layout yolo",
    ("data.detection", "data.untrusted"): "files problems xml_tree",
    ("data.detection", "detection.batches"): "augment grouping loading pipelines",
    ("data.segmentation", "data.label_maps"): "census dataset label_map layouts open pairing",
    ("data.segmentation", "segmentation.batches"): "augment batches photometric",
    ("detection", "detection.dino"): "denoising",
    ("detection", "detection.rcnn"): "anchors roi_heads rpn",
    ("evaluation.detection", "detection"): "box_merging report",
    ("evaluation.detection", "evaluation"): "coco crowd_human matching open_images predictions voc",
    ("evaluation.segmentation", "evaluation"): "confusion",
    ("evaluation.segmentation", "segmentation"): "report submission",
    ("segmentation", "segmentation.mask2former"): "pixel_decoder",
    ("training", "data"): "unreadable randomness",
    ("training", "recipe"): "task",
    ("training.classification", "classification.batches"): "augment",
    ("training.classification", "classification.training"): "batches recipes",
    ("training.detection", "detection.training"): "batches recipes",
    ("training.segmentation", "segmentation.training"): "recipes",
    ("zoo", "checkpoints"): "arrivals catalog class_rows download foreign local transfer",
    ("zoo", "checkpoints.formats"): "containers pickle_scan torch_files",
    ("zoo", "detection.original"): "settings_dino",
    ("zoo", "hub"): "loaded",
}
# Modules that are called otherwise now, or have become several: the first that has what is asked for counts.
RENAMED: Mapping[str, str] = {
    "cli.answers": "cli.predicting.drawings cli.predicting.predictions",
    "cli.bench_models": "cli.measuring.models detection.speed",
    "data.detection.open": "data.readers.open_objects",
    "data.image_folder": "data.readers.folders",
    "data.open": "data.readers.open_labels",
    "data.pictures": "data.images.read data.images.image_file",
    "detection.dino_loss": "detection.dino.loss",
    "detection.dino_transformer": "detection.dino.transformer",
    "detection.rcnn_loss": "detection.rcnn.loss",
    "evaluation.batches": "evaluation.run",
    "evaluation.classification": "classification.evaluate",
    "evaluation.detection.classes": "evaluation.object_classes",
    "evaluation.detection.figures": "evaluation.object_metrics",
    "evaluation.detection.measure": "detection.evaluate",
    "evaluation.detection.test_time": "detection.tta",
    "evaluation.identity": "evaluation.record_log",
    "evaluation.segmentation.measure": "segmentation.evaluate",
    "evaluation.segmentation.test_time": "segmentation.tta",
    "evaluation.segmentation.worst": "segmentation.worst_images",
    "training.busy": "training.meters",
    "training.classification.config": "classification.training.recipe",
    "training.classification.param_groups": "training.optim",
    "training.classification.schedule": "recipe.schedules",
    "training.classification.start": "training.initial_weights",
    "training.classification.task": "classification.training.procedure",
    "training.console": "training.display",
    "training.dense.param_groups": "training.optim",
    "training.dense.schedule": "recipe.schedules",
    "training.dense.settings": "recipe",
    "training.dense.start": "training.initial_weights",
    "training.detection.config": "detection.training.recipe",
    "training.detection.task": "detection.training.procedure",
    "training.engine": "training.device",
    "training.finite": "training.meters",
    "training.overrides": "settings",
    "training.param_groups": "training.optim",
    "training.precision": "training.device",
    "training.published": "training.recipes",
    "training.result": "training.records",
    "training.schedule": "recipe.schedules",
    "training.segmentation.config": "segmentation.training.recipe",
    "training.segmentation.task": "segmentation.training.procedure",
    "training.setting_docs": "settings",
    "training.settings": "recipe",
    "training.since": "training.meters",
    "training.start": "training.initial_weights",
    "training.tasks": "training.setup",
    "training.trainer": "training.loop",
    "segmentation.presets": "segmentation.config",
    "zoo.checkpoint": "flow checkpoints.checkpoint",
    "zoo.choices": "backbones.choice",
    "zoo.conversion": "hub.convert hub.keys",
    "zoo.detection_rows": "detection.published",
    "zoo.detector_wish": "detection.creation",
    "zoo.document": "checkpoints.header",
    "zoo.factory": "hub.create hub.load hub.opening",
    "zoo.filling": "checkpoints.fill",
    "zoo.first_layer": "checkpoints.fill",
    "zoo.huggingface": "checkpoints.formats.huggingface classification.original.files",
    "zoo.inference": "classification.original.recognition backbones.original.shapes",
    "zoo.inspection": "hub.inspect",
    "zoo.mm_config": "checkpoints.formats.openmmlab",
    "zoo.mm_values": "checkpoints.formats.openmmlab_values",
    "zoo.official": "hub.keys checkpoints.rename classification.original.names",
    "zoo.official_detection": "detection.original.names",
    "zoo.official_segmentation": "segmentation.original.names",
    "zoo.recognition": "tasks",
    "zoo.saving": "checkpoints.save",
    "zoo.segmentation_rows": "segmentation.published",
    "zoo.segmentor_wish": "segmentation.creation",
    "zoo.settings": "classification.original.settings backbones.original.settings",
    "zoo.settings_detection": "detection.original.settings",
    "zoo.settings_segmentation": "segmentation.original.settings",
    "zoo.weights": "hub.opening checkpoints.read checkpoints.save",
}
# Packages that are gone, and where to look for what they held, first to last.
PACKAGES: Mapping[str, Sequence[str]] = {
    package: homes.split()
    for package, homes in {
        "data.detection": (
            "data.objects.annotation data.objects.dataset data.untrusted.problems data.readers.open_objects "
            "data.readers.coco data.readers.open_images data.readers.voc data.readers.yolo detection.batches.augment "
            "detection.batches.grouping detection.batches.loading detection.batches.pipelines"
        ),
        "data.segmentation": (
            "data.class_list data.label_maps.dataset data.label_maps.label_map data.label_maps.open "
            "segmentation.batches.augment segmentation.batches.batches segmentation.batches.photometric"
        ),
        "evaluation.detection": "detection.evaluate detection.report detection.tta",
        "evaluation.segmentation": (
            "segmentation.evaluate segmentation.report segmentation.tta segmentation.submission "
            "segmentation.worst_images evaluation.confusion"
        ),
        "training.classification": "classification.training.recipe",
        "training.dense": "recipe",
        "training.detection": "detection.training.recipe",
        "training.segmentation": "segmentation.training.recipe",
        "zoo": (
            "checkpoints checkpoints.catalog hub.opening checkpoints.read checkpoints.save hub.create hub.load "
            "hub.convert data.labels"
        ),
    }.items()
}
# Every old module that is no package, and where to look for what it held.
MODULES: Mapping[str, Sequence[str]] = {
    **{f"{old}.{name}": [f"{new}.{name}"] for (old, new), names in KEPT.items() for name in names.split()},
    **{old: homes.split() for old, homes in RENAMED.items()},
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
    "classification.preprocess.PreprocessConfig": "ClassificationPreprocess",
    "coco_figures": "coco_metrics",
    "count_truth": "count_targets",
    "crowd_figures": "crowd_metrics",
    "decode_picture": "decode_image",
    "detection.box_merging.Method": "Merging",
    "detection.published.detector_of_row": "published_config",
    "detection.tta.Looking": "ViewReader",
    "detection.tta.MultiScale": "DetectionTTA",
    "detection.preprocess.PreprocessConfig": "DetectionPreprocess",
    "lvis_figures": "lvis_metrics",
    "picture_size": "image_size",
    "published_figures": "published_metrics",
    "read_picture": "read_rgb",
    "segmentation.preprocess.PreprocessConfig": "SegmentationPreprocess",
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
    return [f"internimage.{home}" for home in PACKAGES.get(name) or MODULES.get(name, ())]


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
