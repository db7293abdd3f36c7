"""What the published runs of detectors and segmentors start from, by size of the backbone."""

from __future__ import annotations

# Stochastic depth of the last block, by size.
DROP_PATH = {"t": 0.2, "s": 0.3, "b": 0.4, "l": 0.4, "xl": 0.4, "h": 0.5, "g": 0.5}
FLASH_DROP_PATH = {"t": 0.2, "s": 0.3, "b": 0.3, "l": 0.4}
# The published classifiers that the runs start from.
PRETRAINED = {
    "t": "internimage_t_1k_224",
    "s": "internimage_s_1k_224",
    "b": "internimage_b_1k_224",
    "l": "internimage_l_22k_192to384",
    "xl": "internimage_xl_22k_192to384",
    "h": "internimage_h_jointto22k_384",
    "g": "internimage_g_pretrainto22k_384",
}
FLASH_PRETRAINED = {
    "t": "flash_intern_image_t_1k_224",
    "s": "flash_intern_image_s_1k_224",
    "b": "flash_intern_image_b_1k_224",
    "l": "flash_intern_image_l_22k_384",
}
