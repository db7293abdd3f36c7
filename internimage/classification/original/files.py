"""Classifiers in the forms of the originals: a container of `torch.save`, and a folder of Transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from internimage.backbones.original.settings import FLASH_TYPE
from internimage.checkpoints.formats.huggingface import CONFIG, MODEL_TYPE, PREPROCESSOR, RESAMPLE
from internimage.classification.model import ClassifierConfig
from internimage.classification.original.settings import classifier_to_settings
from internimage.classification.preprocess import ClassificationPreprocess


def to_original(config: ClassifierConfig, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the content of an original file: weights by original names, and a plain configuration beside them."""
    settings = classifier_to_settings(config)
    outer = {name: settings.pop(name) for name in ("num_classes", "drop_rate", "drop_path_rate", "drop_path_type")}
    is_flash = config.backbone.operator == "dcnv4"
    kind = settings.pop("type", FLASH_TYPE if is_flash else "intern_image")
    section = "FLASH_INTERN_IMAGE" if is_flash else "INTERN_IMAGE"
    return {
        "model": dict(state),
        "config": {
            "MODEL": {
                "TYPE": kind,
                **{key.upper(): value for key, value in outer.items()},
                section: {key.upper(): value for key, value in settings.items()},
            },
            "DATA": {"IMG_SIZE": config.preprocess.size},
        },
        "preprocess": dataclasses.asdict(config.preprocess),
        "class_names": None if config.class_names is None else list(config.class_names),
    }


def to_folder(config: ClassifierConfig) -> dict[str, dict[str, Any]]:
    """Return the JSON files of a Transformers folder by their names."""
    return {CONFIG: config_json(config), PREPROCESSOR: preprocessor_json(config.preprocess)}


def config_json(config: ClassifierConfig) -> dict[str, Any]:
    """Return the content of `config.json` for a classifier."""
    settings = classifier_to_settings(config)
    if "type" in settings:
        raise ValueError("the Transformers format has no metadata head; keep this model as .safetensors or .pth")
    content: dict[str, Any] = {
        "architectures": ["InternImageModelForImageClassification"],
        "model_type": MODEL_TYPE,
        "torch_dtype": "float32",
        "with_cp": False,
        **settings,
    }
    if config.class_names is not None:
        content["id2label"] = {str(i): name for i, name in enumerate(config.class_names)}
    return content


def preprocessor_json(config: ClassificationPreprocess) -> dict[str, Any]:
    """Return the content of `preprocessor_config.json`.

    Raises:
        ValueError: the images have a value range, which that file has no place for.
    """
    if config.value_range is not None:
        raise ValueError("the Transformers format has no value range of images; keep it as .safetensors or .pth")
    square = {"height": config.size, "width": config.size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.size} if config.crop else square,
        "resample": next(number for number, name in RESAMPLE.items() if name == config.interpolation),
        "do_center_crop": config.crop,
        "crop_size": square,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }
