from __future__ import annotations

import copy
from dataclasses import replace
from math import ceil

import pytest
import torch

from internimage.backbones import BackboneConfig, InternImage, variant
from internimage.layers.deform_conv import DCNv3, DCNv4

TINY = BackboneConfig(channels=8, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8))
SWITCHES = {
    "pre_norm": {},
    "post_norm_scale": {"post_norm": True, "layer_scale": 1e-5},
    "pre_norm_scale": {"layer_scale": 1.0},
    "post_norm": {"post_norm": True, "center_feature_scale": True, "dw_kernel_size": 5},
    "res_post_norm": {"res_post_norm": True, "level2_post_norm_block_ids": (0, 1), "center_feature_scale": True},
    "remove_center": {"remove_center": True, "offset_scale": 2.0},
    "kernel_5": {"kernel_size": 5},
    "flash": {"operator": "dcnv4", "output_bias": False, "mlp_output_bias": False},
    "flash_dw": {"operator": "dcnv4", "dw_kernel_size": 3, "post_norm": True, "layer_scale": 1e-5},
    "flash_gate": {"operator": "dcnv4", "center_feature_scale": True, "remove_center": True},
    "through_dcnv4": {"operator": "dcnv3_through_dcnv4", "offset_scale": 0.5},
}


def randomized(config: BackboneConfig, **settings: object) -> InternImage:
    """A backbone whose offsets, masks and gates are not at their zero start."""
    backbone = InternImage(config, **settings)
    for module in backbone.modules():
        if isinstance(module, DCNv3):
            torch.nn.init.normal_(module.offset.weight, std=0.5)
            torch.nn.init.normal_(module.mask.weight, std=0.5)
        if isinstance(module, DCNv4):
            torch.nn.init.normal_(module.offset_mask.weight, std=0.2)
    return backbone


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("size", [(64, 64), (33, 70), (1, 1)])
def test_maps_have_the_promised_shapes_and_are_finite(name: str, size: tuple[int, int]) -> None:
    backbone = randomized(replace(TINY, **SWITCHES[name]))
    maps = backbone(torch.randn(2, 3, *size)).maps
    for width, map_, stride in zip((8, 16, 32, 64), maps, backbone.strides, strict=True):
        assert map_.shape == (2, width, ceil(size[0] / stride), ceil(size[1] / stride))
        assert map_.isfinite().all()
        assert map_.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("name", SWITCHES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    backbone = randomized(replace(TINY, **SWITCHES[name]))
    sum(m.square().sum() for m in backbone(torch.randn(1, 3, 64, 64)).maps).backward()
    idle = [key for key, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_batch_of_zero_and_other_input_channels() -> None:
    backbone = InternImage(replace(TINY, in_chans=5))
    assert [m.shape[0] for m in backbone(torch.randn(0, 5, 64, 64)).maps] == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"\(N, 5, H, W\)"):
        backbone(torch.randn(1, 3, 64, 64))


def test_out_indices_choose_maps() -> None:
    backbone = InternImage(TINY, out_indices=(1, 3)).eval()
    everything = InternImage(TINY).eval()
    everything.load_state_dict(backbone.state_dict())
    x = torch.randn(1, 3, 64, 64)
    chosen, all_maps = backbone(x).maps, everything(x).maps
    assert backbone.channels == (16, 64)
    assert torch.equal(chosen[0], all_maps[1])
    assert torch.equal(chosen[1], all_maps[3])
    for wrong in ((), (0, 4), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="out_indices"):
            InternImage(TINY, out_indices=wrong)


@pytest.mark.parametrize("frozen_stages", [-1, 0, 2, 4])
def test_frozen_stages_really_freeze(frozen_stages: int) -> None:
    config = replace(TINY, drop_rate=0.5, drop_path_rate=0.5)
    backbone = InternImage(config, frozen_stages=frozen_stages).train()
    trained = {key for key, p in backbone.named_parameters() if p.requires_grad}
    assert any(key.startswith("patch_embed") for key in trained) == (frozen_stages < 0)
    for level in range(4):
        assert any(key.startswith(f"levels.{level}.") for key in trained) == (level >= frozen_stages)
    if frozen_stages == 4:
        x = torch.randn(1, 3, 32, 32)
        assert torch.equal(backbone(x).maps[-1], backbone(x).maps[-1]), "frozen parts must not drop anything"


def test_fused_blocks_norm_what_dropout_left() -> None:
    backbone = randomized(replace(TINY, drop_rate=0.5)).eval()
    x, maps = torch.randn(1, 3, 64, 64), []
    with torch.no_grad():
        for model in (backbone, copy.deepcopy(backbone).fuse()):
            model.pos_drop.train()  # dropout at inference, as for Monte Carlo estimates
            torch.manual_seed(0)
            maps.append(model(x).maps[-1])
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-4, atol=1e-4)


def test_activation_checkpointing_changes_nothing_but_memory() -> None:
    plain = randomized(TINY)
    thrifty = InternImage(TINY, activation_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for backbone in (plain, thrifty):
        backbone.train()
        backbone(x).maps[-1].square().sum().backward()
    for a, b in zip(plain.parameters(), thrifty.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_initialization_is_the_published_one() -> None:
    backbone = InternImage(replace(TINY, center_feature_scale=True, layer_scale=1e-5))
    for block in (block for level in backbone.levels for block in level.blocks):
        assert not block.dcn.offset.weight.any()
        assert not block.dcn.mask.bias.any()
        assert not block.dcn.center_feature_scale_proj.weight.any()
        assert block.dcn.input_proj.weight.abs().max() <= (6 / (2 * block.dcn.input_proj.in_features)) ** 0.5
        assert 0.005 < block.mlp.fc1.weight.std() < 0.03
        assert torch.equal(block.gamma1, torch.full_like(block.gamma1, 1e-5))


def test_fresh_operator_is_a_plain_average() -> None:
    dcn = DCNv3(8, 2).eval()
    torch.nn.init.eye_(dcn.input_proj.weight)
    torch.nn.init.eye_(dcn.output_proj.weight)
    x = torch.randn(1, 6, 7, 8)
    expected = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(dcn(x), expected, atol=1e-5, rtol=1e-5)


def test_drop_path_drops_whole_branches() -> None:
    backbone = InternImage(replace(TINY, drop_path_rate=0.9, drop_path_type="uniform")).train()
    x = torch.randn(1, 3, 64, 64)
    outputs = {tuple(backbone(x).maps[0].flatten()[:4].tolist()) for _ in range(8)}
    assert len(outputs) > 1
    backbone.eval()
    assert torch.equal(backbone(x).maps[0], backbone(x).maps[0])


@pytest.mark.parametrize("name", ["pre_norm", "res_post_norm"])
def test_compiles_without_graph_breaks_and_exports(name: str) -> None:
    backbone = randomized(replace(TINY, **SWITCHES[name])).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = backbone(x).maps
    compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")(x).maps
    exported = torch.export.export(backbone, (x,)).module()(x).maps
    for maps in (compiled, exported):
        torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SWITCHES)
def test_inference_steps_equal_the_training_graph(name: str) -> None:
    backbone = randomized(replace(TINY, **SWITCHES[name])).eval()
    x = torch.randn(2, 3, 65, 70)
    separate = backbone(x).maps  # gradients are on: the separate operators run
    with torch.inference_mode():
        fused = backbone(x).maps
    torch.testing.assert_close(fused, separate, atol=5e-4, rtol=5e-4)


@pytest.mark.parametrize("name", ["pre_norm", "post_norm", "res_post_norm"])
def test_inference_in_pieces_and_under_the_profiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = randomized(replace(TINY, **SWITCHES[name])).eval()
    x = torch.randn(2, 3, 65, 70)
    with torch.inference_mode():
        whole = backbone(x).maps
        monkeypatch.setattr("internimage.layers.mlp.CHUNK_BYTES", 3000)  # 23 rows of the first level at once
        pieces = backbone(x).maps
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):  # the registered operators run
            seen = backbone(x).maps
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen, pieces, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SWITCHES)
def test_inference_steps_are_as_exact_in_bfloat16_as_the_training_graph(name: str) -> None:
    backbone = randomized(replace(TINY, **SWITCHES[name])).eval()
    x = torch.randn(2, 3, 65, 70)
    with torch.inference_mode():
        expected = backbone(x).maps[-1]
    backbone.to(torch.bfloat16)
    separate = backbone(x.bfloat16()).maps[-1].detach().float()
    with torch.inference_mode():
        fused = backbone(x.bfloat16()).maps[-1].float()
    assert (fused - expected).norm() <= 1.5 * (separate - expected).norm()


def test_the_bridge_to_dcnv4_changes_no_number() -> None:
    plain = randomized(TINY)
    bridged = InternImage(replace(TINY, operator="dcnv3_through_dcnv4"))
    bridged.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 65, 70)
    for want, got in zip(plain(x).maps, bridged(x).maps, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_fresh_flash_operator_answers_zero() -> None:
    dcn = DCNv4(8, 2, dw_kernel_size=3)
    assert not dcn(torch.randn(1, 5, 6, 8)).any()


@pytest.mark.parametrize("name", ["internimage_pico", "flash_internimage_t"])
def test_the_backend_of_a_module_is_the_one_its_operator_runs_with(name: str) -> None:
    block = InternImage(variant(name)).levels[0].blocks[0]
    block.dcn.backend = "unknown"
    with pytest.raises(ValueError, match="backend must be one of"):
        block.dcn(torch.rand(1, 4, 4, variant(name).channels))
