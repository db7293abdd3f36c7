"""Original-style settings of a backbone and ours, in both directions.

The originals write the same architecture in three ways, which this file reads alike: the arguments of the model's
constructor, the nested configuration of a classifier (`MODEL: INTERN_IMAGE: ...`) and `config.json` of a Transformers
folder. Values that a YAML reader leaves as text ("None", "1e-5") are accepted.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from internimage.backbones.config import BackboneConfig

# The constructor's defaults of the switches; channels, depths and groups have no default that fits a published model.
DEFAULTS: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "layer_scale": None,
    "offset_scale": 1.0,
    "post_norm": False,
    "res_post_norm": False,
    "dw_kernel_size": None,
    "level2_post_norm": False,
    "level2_post_norm_block_ids": None,
    "center_feature_scale": False,
    "remove_center": False,
    "drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "drop_path_type": "linear",
    "num_classes": 1000,
    "use_clip_projector": False,
    "use_dcn_v4_op": False,
    "cls_scale": 1.5,
    "dcn_output_bias": False,
    "mlp_fc2_bias": False,
}
REQUIRED = ("channels", "depths", "groups")
# Settings that are called the same and mean the same in `BackboneConfig`.
NUMBERS = ("mlp_ratio", "offset_scale", "drop_rate", "drop_path_rate")
FLAGS = ("post_norm", "res_post_norm", "center_feature_scale", "remove_center")
# Settings with one supported value, or several that compute the same function.
FIXED: dict[str, tuple[Any, ...]] = {
    "core_op": ("DCNv3", "DCNv3_pytorch", "DCNv4"),
    "norm_layer": ("LN",),
    "act_layer": ("GELU",),
    "kernel_size": (3,),
}
# Settings of a run, not of the architecture; arguments of `create` take their place.
IGNORED = (
    *("type", "name", "with_cp", "out_indices", "frozen_stages", "init_cfg", "pretrained"),
    *("label_smoothing", "resume", "img_size"),
)
FLASH_OFFSET_SCALE = 0.5  # the default of FlashInternImage's constructor; its nested configurations state 1.0
METADATA_TYPE = "intern_image_meta_former"
FLASH_TYPE = "flash_intern_image"


def backbone_from_settings(settings: Mapping[str, Any]) -> BackboneConfig:
    """Return the architecture that original settings describe.

    Args:
        settings: constructor arguments, a nested classifier configuration or the content of a `config.json`.

    Raises:
        ValueError: a setting is missing, unknown or not supported; the message says which.

    Example:
        >>> backbone_from_settings(
        ...     {"core_op": "DCNv3", "channels": 64, "depths": [4, 4, 18, 4], "groups": [4, 8, 16, 32]}
        ... ).widths
        (64, 128, 256, 512)
    """
    values = read_settings(settings)
    ids = values["level2_post_norm_block_ids"] if flag(values, "level2_post_norm") else None
    scale = values["layer_scale"]
    size = values["dw_kernel_size"]
    is_flash = values.get("core_op") == "DCNv4"
    operator = "dcnv3_through_dcnv4" if flag(values, "use_dcn_v4_op") else "dcnv3"
    return BackboneConfig(
        channels=integer(values, "channels"),
        depths=_four(values, "depths"),
        groups=_four(values, "groups"),
        operator="dcnv4" if is_flash else operator,
        output_bias=flag(values, "dcn_output_bias") if is_flash else True,
        mlp_output_bias=flag(values, "mlp_fc2_bias") if is_flash else True,
        layer_scale=None if scale is None else number(values, "layer_scale"),
        dw_kernel_size=None if size is None else integer(values, "dw_kernel_size"),
        level2_post_norm_block_ids=() if ids is None else tuple(int(i) for i in ids),
        drop_path_type=values["drop_path_type"],
        **{name: number(values, name) for name in NUMBERS},
        **{name: flag(values, name) for name in FLAGS},
    )


def backbone_to_settings(config: BackboneConfig) -> dict[str, Any]:
    """Return the constructor arguments of the original for a backbone; the inverse of `backbone_from_settings`.

    Raises:
        ValueError: the original has no such network.
    """
    if config.kernel_size != 3 or config.in_chans != 3:
        raise ValueError(
            f"the original format knows kernel_size 3 and in_chans 3 only, given {config.kernel_size} and "
            f"{config.in_chans}; keep this model as .safetensors"
        )
    if config.operator != "dcnv4" and not config.mlp_output_bias:
        raise ValueError("the original format knows mlp_output_bias=False with dcnv4 only; keep this as .safetensors")
    ids = list(config.level2_post_norm_block_ids)
    flash = {"dcn_output_bias": config.output_bias, "mlp_fc2_bias": config.mlp_output_bias}
    return {
        **(flash if config.operator == "dcnv4" else {"use_dcn_v4_op": config.operator != "dcnv3"}),
        "core_op": "DCNv4" if config.operator == "dcnv4" else "DCNv3",
        "channels": config.channels,
        "depths": list(config.depths),
        "groups": list(config.groups),
        "act_layer": "GELU",
        "norm_layer": "LN",
        "level2_post_norm": bool(ids),
        "level2_post_norm_block_ids": ids or None,
        **{
            name: getattr(config, name)
            for name in ("layer_scale", "dw_kernel_size", "drop_path_type", *NUMBERS, *FLAGS)
        },
    }


def known_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the settings that describe a model; files of other libraries hold many more."""
    names = {*DEFAULTS, *REQUIRED, *FIXED}
    return {key: value for key, value in values.items() if key in names}


def read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten, read text values, check names and fixed values, and add the defaults.

    Args:
        settings: see `backbone_from_settings`.

    Returns:
        A value for each setting of a backbone and of a classifier, "type" and "img_size" among them.

    Raises:
        ValueError: a setting is missing, unknown or not supported.
    """
    values = {key: _value(value) for key, value in _flat(settings).items()}
    unknown = sorted(set(values) - {*DEFAULTS, *REQUIRED, *FIXED, *IGNORED})
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}; known are {', '.join([*REQUIRED, *DEFAULTS])}")
    missing = [name for name in REQUIRED if values.get(name) is None]
    if missing:
        raise ValueError(f"the settings lack {', '.join(missing)}")
    for name, allowed in FIXED.items():
        if values.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, given {values[name]!r}")
    # The original takes these two beside DCNv4 and leaves them out of the operator.
    ignored = [name for name in ("center_feature_scale", "remove_center") if values.get(name)]
    if values.get("core_op") == "DCNv4" and ignored:
        raise ValueError(
            f"{' and '.join(ignored)} have no effect in the original beside core_op 'DCNv4'; leave them out"
        )
    defaults = dict(DEFAULTS)
    if values.get("core_op") == "DCNv4" and not isinstance(settings.get("MODEL"), Mapping):
        defaults["offset_scale"] = FLASH_OFFSET_SCALE
    return {"type": None, "img_size": None, **defaults, **values}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a nested classifier configuration into constructor arguments; others stay as they are."""
    model = settings.get("MODEL")
    if not isinstance(model, Mapping):
        return dict(settings)
    kind = str(model.get("TYPE", "intern_image"))
    if kind not in ("intern_image", FLASH_TYPE, METADATA_TYPE):
        raise ValueError(f"MODEL.TYPE must be 'intern_image', '{FLASH_TYPE}' or '{METADATA_TYPE}', given {kind!r}")
    inner = model.get("INTERN_IMAGE", model.get("FLASH_INTERN_IMAGE"))
    if not isinstance(inner, Mapping):
        raise ValueError("the configuration has no MODEL.INTERN_IMAGE and no MODEL.FLASH_INTERN_IMAGE")
    outer = {
        name: model[name] for name in ("NUM_CLASSES", "DROP_RATE", "DROP_PATH_RATE", "DROP_PATH_TYPE") if name in model
    }
    values = known_settings({str(key).lower(): value for key, value in {**outer, **inner}.items()})
    data = settings.get("DATA")
    size = data.get("IMG_SIZE") if isinstance(data, Mapping) else None
    return {**values, "type": kind, "img_size": size}


def _value(value: Any) -> Any:
    """Read a value that a YAML reader left as text, such as "None" or "1e-5"."""
    if not isinstance(value, str) or len(value) > 100:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def number(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a setting that is a number; the default where it is missing."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, given {value!r}")
    return float(value)


def integer(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a setting that is a whole number; the default where it is missing."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, given {value!r}")
    return value


def flag(values: Mapping[str, Any], name: str) -> bool:
    """Return a setting that is a switch."""
    if not isinstance(values[name], bool):
        raise ValueError(f"{name} must be True or False, given {values[name]!r}")
    return values[name]


def _four(values: Mapping[str, Any], name: str) -> tuple[int, int, int, int]:
    value = values[name]
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(type(v) is int for v in value):
        raise ValueError(f"{name} must be four whole numbers, given {value!r}")
    return (value[0], value[1], value[2], value[3])
