"""Old names of modules and of what they held keep working for one release, with a warning that says the new name."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest

from internimage.moved import MODULES, NAMES, PACKAGES

# What scripts of users and the pages of the last release import, and where it is now.
USED = (
    ("internimage.zoo", "load"),
    ("internimage.zoo", "list_models"),
    ("internimage.zoo", "label_set"),
    ("internimage.zoo.weights", "save_model"),
    ("internimage.zoo.factory", "create"),
    ("internimage.data.detection", "open_detection_dataset"),
    ("internimage.data.detection", "open_coco"),
    ("internimage.data.detection", "TrainingViews"),
    ("internimage.data.segmentation", "open_segmentation_dataset"),
    ("internimage.data.segmentation", "Augmentation"),
    ("internimage.data.pictures", "read_picture"),
    ("internimage.evaluation", "evaluate"),
    ("internimage.evaluation", "evaluate_detection"),
    ("internimage.evaluation", "evaluate_segmentation"),
    ("internimage.evaluation.detection", "MultiScale"),
    ("internimage.evaluation.detection", "predict_multi_scale"),
    ("internimage.evaluation.detection", "published_figures"),
    ("internimage.evaluation.detection.classes", "TruthClasses"),
    ("internimage.evaluation.detection.crowd_human", "crowd_figures"),
    ("internimage.evaluation.detection.figures", "measure"),
    ("internimage.evaluation.detection.predictions", "found_objects"),
    ("internimage.evaluation.detection.box_merging", "Method"),
    ("internimage.evaluation.segmentation", "MultiScale"),
    ("internimage.evaluation.segmentation.test_time", "SINGLE_SCALE"),
    ("internimage.evaluation.segmentation", "published_miou"),
    ("internimage.classification", "PreprocessConfig"),
    ("internimage.detection.preprocess", "PreprocessConfig"),
    ("internimage.segmentation", "PreprocessConfig"),
)


@pytest.mark.parametrize(("module", "name"), USED)
def test_old_names_give_what_the_new_ones_hold(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^{module}\.{name} is internimage\.[\w.]+ now") as warned:
        old = getattr(importlib.import_module(module), name)
    home, _, new = str(warned[0].message).split(" is ")[1].split(" now")[0].rpartition(".")
    assert old is getattr(importlib.import_module(home), new)


@pytest.mark.parametrize("name", sorted({*MODULES, *PACKAGES}))
def test_every_old_module_is_found(name: str) -> None:
    parent = name.rpartition(".")[0]
    if parent and f"internimage.{parent}" not in sys.modules:
        importlib.import_module(f"internimage.{parent}")
    assert importlib.util.find_spec(f"internimage.{name}") is not None
    homes = PACKAGES.get(name) or MODULES[name]
    for home in (homes,) if isinstance(homes, str) else homes:
        assert importlib.util.find_spec(f"internimage.{home}") is not None, home


def test_importing_an_old_name_warns_where_it_is_imported() -> None:
    with pytest.warns(DeprecationWarning, match=r"PictureAnnotation is internimage\.data\.objects") as warned:
        from internimage.data.detection import PictureAnnotation  # type: ignore[import-not-found]  # the point here
    assert PictureAnnotation.__name__ == NAMES["PictureAnnotation"]
    assert warned[0].filename == __file__


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("internimage.zoology")
    with pytest.raises(ImportError, match=r"no attribute|cannot import"):
        from internimage.zoo import nothing  # noqa: F401  # type: ignore[import-not-found]  # the point here
