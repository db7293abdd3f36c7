from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from internimage.backbones import variant
from internimage.classification.head import AttentionPoolHead, ConvHead, MetadataHead, build_head
from internimage.types import Features

CONFIG = replace(variant("internimage_pico"), channels=16, groups=(1, 2, 4, 8))


def maps(height: int, width: int, batch: int = 2) -> Features:
    """Random maps of the sizes that an image of (height, width) leads to."""
    sides = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    return Features(tuple(torch.randn(batch, c, h, w) for c, (h, w) in zip(CONFIG.widths, sides, strict=True)))


def test_conv_head_pools_after_the_activation() -> None:
    head = ConvHead(CONFIG, 7).eval()
    features = maps(64, 96)
    x = F.conv2d(features.maps[3], head.conv.weight)
    x = F.gelu(x / (1 + 1e-5) ** 0.5)  # a fresh batch norm in evaluation mode
    torch.testing.assert_close(head(features), head.classifier(x.mean((2, 3))))
    assert head.conv.weight.shape == (192, 128, 1, 1) and head.conv.bias is None


def test_attention_pool_head_adds_the_last_two_maps() -> None:
    head = AttentionPoolHead(CONFIG, 7).eval()
    features = maps(64, 96)
    x4 = F.pixel_shuffle(head.project_x4(features.maps[3]), 2)
    x3 = head.project_x3(features.maps[2])
    assert x3.shape == x4.shape
    tokens = (x3 + x4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(head(features), head.classifier(head.norm(head.attention_pool(tokens))))


@pytest.mark.parametrize("hw", [(48, 64), (17, 17), (1, 1), (33, 100)])
def test_attention_pool_head_ignores_what_lies_outside_of_the_image(hw: tuple[int, int]) -> None:
    head = AttentionPoolHead(CONFIG, 7).eval()
    features = maps(*hw)
    shuffled = F.pixel_shuffle(head.project_x4(features.maps[3]), 2)
    height, width = features.maps[2].shape[2:]
    assert shuffled.shape[2] - height in (0, 1) and shuffled.shape[3] - width in (0, 1)
    tokens = (head.project_x3(features.maps[2]) + shuffled[..., :height, :width]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(head.pool(features), head.norm(head.attention_pool(tokens)))


def test_metadata_head_adds_logits() -> None:
    head = MetadataHead(CONFIG, 7).eval()
    features, metadata = maps(64, 64), torch.randn(2, 7)
    difference = head(features, metadata) - head.image(features)
    side = torch.cat([head.temporal(metadata[:, :4]), head.spatial(metadata[:, 4:])], dim=1)
    torch.testing.assert_close(difference, head.classifier(head.norm(side)))
    torch.testing.assert_close(head.pool(features), head.image.pool(features))


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="conv, attention_pool, attention_pool_metadata"):
        build_head("linear", CONFIG, 3)
    with pytest.raises(ValueError, match="num_classes"):
        build_head("conv", CONFIG, 0)
