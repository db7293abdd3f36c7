from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internimage.backbones import VARIANTS, BackboneConfig
from internimage.backbones.original.settings import backbone_from_settings, backbone_to_settings
from internimage.checkpoints.formats.huggingface import (
    read_class_names,
    read_preprocess,
    read_settings,
)
from internimage.classification import ClassificationPreprocess, ClassifierConfig
from internimage.classification.original.files import config_json, preprocessor_json
from internimage.classification.original.settings import classifier_from_settings, classifier_to_settings

MINIMAL = {"channels": 16, "depths": [1, 1, 2, 1], "groups": [1, 2, 4, 8]}


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "internimage_pico"])
def test_published_sizes_go_there_and_back(name: str) -> None:
    assert backbone_from_settings(backbone_to_settings(VARIANTS[name])) == VARIANTS[name]


@pytest.mark.parametrize("head", ["conv", "attention_pool", "attention_pool_metadata"])
def test_classifiers_go_there_and_back(head: Any) -> None:
    config = ClassifierConfig(VARIANTS["internimage_h"], 7, head=head, conv_head_ratio=2.0)
    assert classifier_from_settings(classifier_to_settings(config)) == config


def test_nested_configuration_with_text_values(yacs_settings: dict[str, Any]) -> None:
    config = classifier_from_settings(yacs_settings)
    assert config.backbone == BackboneConfig(
        16, (1, 1, 2, 1), (1, 2, 4, 8), layer_scale=1e-5, post_norm=True, drop_path_rate=0.1
    )
    assert (config.num_classes, config.head, config.preprocess.size) == (5, "conv", 96)


def test_ids_count_only_with_their_switch() -> None:
    ids = {"level2_post_norm_block_ids": [0, 1]}
    assert backbone_from_settings({**MINIMAL, **ids}).level2_post_norm_block_ids == ()
    assert backbone_from_settings({**MINIMAL, **ids, "level2_post_norm": True}).level2_post_norm_block_ids == (0, 1)


def test_settings_of_a_run_are_accepted() -> None:
    extra = {"type": "InternImage", "with_cp": True, "out_indices": [1, 2, 3], "init_cfg": None}
    assert backbone_from_settings({**MINIMAL, **extra}) == backbone_from_settings(MINIMAL)


def test_operators_of_the_releases() -> None:
    assert backbone_from_settings({**MINIMAL, "use_dcn_v4_op": True}).operator == "dcnv3_through_dcnv4"
    flash = backbone_from_settings({**MINIMAL, "core_op": "DCNv4"})
    assert (flash.operator, flash.offset_scale, flash.dw_kernel_size) == ("dcnv4", 0.5, None)
    assert (flash.output_bias, flash.mlp_output_bias) == (False, False)
    large = backbone_from_settings({**MINIMAL, "core_op": "DCNv4", "dcn_output_bias": True, "mlp_fc2_bias": True})
    assert (large.output_bias, large.mlp_output_bias) == (True, True)
    nested = {"MODEL": {"TYPE": "flash_intern_image", "FLASH_INTERN_IMAGE": {"CORE_OP": "DCNv4"}}}
    nested["MODEL"]["FLASH_INTERN_IMAGE"] |= {key.upper(): value for key, value in MINIMAL.items()}
    nested["MODEL"]["FLASH_INTERN_IMAGE"]["CORE_OP"] = "DCNv4"
    assert backbone_from_settings(nested).offset_scale == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"core_op": "DCNv4", "remove_center": True}, "remove_center have no effect"),
        ({"core_op": "DCNv2"}, "core_op must be 'DCNv3'"),
        ({"norm_layer": "BN"}, "norm_layer must be 'LN', given 'BN'"),
        ({"act_layer": "ReLU"}, "act_layer"),
        ({"channel": 3}, "unknown settings channel"),
        ({"channels": None}, "lack channels"),
        ({"depths": [1, 2, 3]}, "depths must be four whole numbers"),
        ({"groups": [1, 2, 4, True]}, "groups must be four"),
        ({"post_norm": "yes"}, "post_norm must be True or False"),
        ({"offset_scale": "wide"}, "offset_scale must be a number"),
        ({"num_classes": 1.5}, "num_classes must be a whole number"),
        ({"groups": [3, 6, 12, 24]}, "groups must divide"),
    ],
)
def test_unsupported_values_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier_from_settings({**MINIMAL, **change})


def test_other_model_types_are_refused(yacs_settings: dict[str, Any]) -> None:
    yacs_settings["MODEL"]["TYPE"] = "swin"
    with pytest.raises(ValueError, match=r"MODEL\.TYPE"):
        classifier_from_settings(yacs_settings)


def test_the_original_format_cannot_say_everything() -> None:
    with pytest.raises(ValueError, match="safetensors"):
        backbone_to_settings(BackboneConfig(16, (1, 1, 1, 1), (1, 1, 1, 1), kernel_size=5))
    with pytest.raises(ValueError, match="mlp_output_bias"):
        backbone_to_settings(BackboneConfig(16, (1, 1, 1, 1), (1, 1, 1, 1), mlp_output_bias=False))


def test_folder_files_go_there_and_back(tmp_path: Path) -> None:
    preprocess = ClassificationPreprocess(size=32, crop=False, interpolation="bilinear", mean=(0.5, 0.5, 0.5))
    config = ClassifierConfig(VARIANTS["internimage_g"], 3, "attention_pool", preprocess, ("a", "b", "c"))
    (tmp_path / "config.json").write_text(json.dumps(config_json(config)))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor_json(preprocess)))
    settings = read_settings(tmp_path)
    assert settings is not None
    names = read_class_names(tmp_path)
    assert (
        classifier_from_settings(
            settings, preprocess=ClassificationPreprocess(**read_preprocess(tmp_path) or {}), class_names=names
        )
        == config
    )


def test_published_folder_files(tmp_path: Path) -> None:
    published = {
        **{"_name_or_path": "OpenGVLab/x", "act_layer": "GELU", "architectures": ["InternImageModel"], "auto_map": {}},
        **{"model_type": "internimage", "torch_dtype": "float32", "transformers_version": "4.37.2", "with_cp": False},
        **classifier_to_settings(ClassifierConfig(VARIANTS["internimage_s"], 1000)),
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    square = {"height": 224, "width": 224}
    legacy = {"crop_size": square, "size": {"shortest_edge": 224}, "do_center_crop": True, "resample": 3}
    statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**legacy, **statistics}))
    settings = read_settings(tmp_path)
    assert settings is not None and backbone_from_settings(settings) == VARIANTS["internimage_s"]
    assert ClassificationPreprocess(**read_preprocess(tmp_path) or {"size": 1}) == ClassificationPreprocess()
    assert read_class_names(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "vit"}', "9" * 10_000])
def test_broken_folder_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_settings(tmp_path)


@pytest.mark.parametrize("change", [{"crop_size": 200}, {"resample": 1}, {"image_mean": [0.5]}, {"size": None}])
def test_preprocessing_that_cannot_be_done_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    content = {**preprocessor_json(ClassificationPreprocess()), **change}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        read_preprocess(tmp_path)
