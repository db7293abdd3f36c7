"""Heads of segmentors by name: the published ones and small ones."""

from __future__ import annotations

from internimage.segmentation.config import HeadConfig, Mask2FormerConfig, SegFormerConfig, UperNetConfig

HEADS: dict[str, HeadConfig] = {
    "upernet": UperNetConfig(),
    "segformer": SegFormerConfig(),
    "mask2former": Mask2FormerConfig(),
    "mask2former_large": Mask2FormerConfig(
        channels=1024, num_queries=200, num_heads=32, encoder_hidden_channels=4096, decoder_hidden_channels=4096
    ),
    "mask2former_flash": Mask2FormerConfig(num_queries=200, encoder_hidden_channels=2048),
    "mask2former_flash_raw": Mask2FormerConfig(num_queries=200, encoder_hidden_channels=2048, encoder_softmax=False),
    "upernet_small": UperNetConfig(channels=48, auxiliary_channels=64, dropout=0.0),
    "mask2former_small": Mask2FormerConfig(
        channels=128,
        num_queries=40,
        num_heads=4,
        encoder_layers=3,
        encoder_hidden_channels=256,
        decoder_layers=3,
        decoder_hidden_channels=512,
        loss_points=2304,
    ),
}
