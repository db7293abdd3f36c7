"""The list of tasks: what is found by name, by model, by configuration and by architecture."""

from __future__ import annotations

import pytest

from internimage import tasks
from internimage.backbones import variant
from internimage.checkpoints.catalog import catalog
from internimage.classification import Classifier, ClassifierConfig
from internimage.errors import UnknownName

# What comes with the package is described in its file.
PUBLISHED = [entry.name for entry in catalog().values() if entry.is_built and entry.source != "bundled"]


def test_a_task_is_found_by_its_name_a_model_a_configuration_and_an_architecture() -> None:
    model = Classifier(ClassifierConfig(variant("internimage_pico"), num_classes=3))
    task = tasks.named("classification")
    assert tasks.of_model(model) is task
    assert tasks.of_config(model.config) is task
    assert tasks.of_architecture("classifier") is task
    assert tasks.of_architecture("internimage_t") is None


def test_unknown_tasks_and_foreign_configurations_are_named() -> None:
    with pytest.raises(UnknownName, match="detection"):
        tasks.named("detektion")
    with pytest.raises(TypeError, match=r"ClassifierConfig, RCNNConfig.*given BackboneConfig"):
        tasks.of_config(variant("internimage_t"))  # type: ignore[arg-type]  # a bare backbone has no task


def test_names_architectures_and_kinds_are_told_apart() -> None:
    every = list(tasks.every())
    assert [task.name for task in every] == list(tasks.MODULES)
    architectures = [name for task in every for name in task.architectures]
    assert len(set(architectures)) == len(architectures)
    kinds = [kind.header_task for task in every for kind in task.configs]
    assert len(set(kinds)) == len(kinds) == len(tasks.configs()) - 1  # and the bare backbone


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_row_gives_the_configuration_of_its_model(name: str) -> None:
    entry = catalog()[name]
    config = tasks.named(entry.task).published(name)
    assert tasks.of_config(config).name == entry.task
    assert (config.num_classes, config.backbone) == (entry.num_classes, entry.backbone_config)
    height, width = tasks.named(entry.task).usual_hw(config)
    assert min(height, width) >= 32
