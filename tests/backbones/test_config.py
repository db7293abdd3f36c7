from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from internimage.backbones import VARIANTS, InternImage, variant
from internimage.backbones.internimage import drop_path_rates
from internimage.errors import UnknownName

# Backbone-only parameters of the published sizes (spec: stem and levels, no head).
PARAMETERS = {
    "internimage_t": 28_754_672, "flash_internimage_t": 28_651_776,
    "internimage_s": 48_502_560, "flash_internimage_s": 48_490_176,
    "internimage_b": 94_909_920, "flash_internimage_b": 94_897_048,
    "internimage_l": 218_952_370, "flash_internimage_l": 218_914_640,
    "internimage_xl": 328_971_228, "internimage_h": 1_073_122_480, "internimage_g": 3_052_781_184,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        backbone = InternImage(variant(name))
    assert sum(p.numel() for p in backbone.parameters()) == PARAMETERS[name]


def test_unknown_variant_suggests_three() -> None:
    with pytest.raises(UnknownName, match="internimage_t") as caught:
        variant("intern_image_t")
    assert len(caught.value.suggestions) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": (3, 8, 16, 32)}, "divide the width"),
        ({"depths": (1, 1, 1)}, "four entries"),
        ({"kernel_size": 4, "remove_center": True}, "odd kernel_size"),
        ({"operator": "dcnv5"}, "operator must be"),
        ({"output_bias": False}, "dcnv4"),
        ({"drop_path_type": "cosine"}, "drop_path_type"),
        ({"drop_path_rate": 1.5}, "drop_path_rate"),
        ({"level2_post_norm_block_ids": (40,)}, "outside of level 2"),
    ],
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(VARIANTS["internimage_t"], **change)


def test_drop_path_grows_linearly_or_is_uniform() -> None:
    config = replace(VARIANTS["internimage_pico"], drop_path_rate=0.9)
    rates = drop_path_rates(config)
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.9)
    assert rates == sorted(rates)
    assert drop_path_rates(replace(config, drop_path_type="uniform")) == [0.9] * sum(config.depths)
