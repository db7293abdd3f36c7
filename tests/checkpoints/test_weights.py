from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from internimage.backbones import InternImage, variant
from internimage.checkpoints.rename import to_huggingface
from internimage.checkpoints.save import save_model
from internimage.classification import Classifier, ClassifierConfig
from internimage.data.labels import label_set, rows_22k_to_1k
from internimage.errors import CheckpointMismatch
from internimage.hub.create import create
from internimage.hub.load import from_original, load
from internimage.hub.opening import read_checkpoint

Same = Callable[[torch.nn.Module, torch.nn.Module], None]
SMALL = {"channels": 16, "depths": [1, 1, 2, 1], "groups": [1, 2, 4, 8], "num_classes": 5}
SETTINGS = {**SMALL, "layer_scale": 1e-5, "post_norm": True}


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("container", ["model", "module", "state_dict", "model_ema", "bare"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_published_container(
    tmp_path: Path,
    small: Classifier,
    small_state: dict[str, Tensor],
    same_weights: Same,
    container: str,
    prefix: str,
    is_zip: bool,
) -> None:
    state = wrapped(small_state, prefix)
    content = state if container == "bare" else {container: state, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=is_zip)
    same_weights(load(tmp_path / "file.pth", settings=SETTINGS), small)


def test_our_own_names_in_a_torch_file(tmp_path: Path, small: Classifier, same_weights: Same) -> None:
    torch.save(small.state_dict(), tmp_path / "ours.pth")
    same_weights(load(tmp_path / "ours.pth", settings=SETTINGS), small)


def test_averaged_weights_are_chosen_on_request(tmp_path: Path, small_state: dict[str, Tensor]) -> None:
    averaged = {key: value + 1 for key, value in small_state.items()}
    torch.save({"model": small_state, "model_ema": wrapped(averaged, "module.")}, tmp_path / "both.pth")
    bias = small_state["head.bias"]
    for ema, expected in ((None, bias), (False, bias), (True, bias + 1)):
        model = load(tmp_path / "both.pth", settings=SETTINGS, ema=ema)
        assert torch.equal(model.head.classifier.bias, expected)
    torch.save({"model_ema": averaged}, tmp_path / "averaged.pth")
    with pytest.raises(ValueError, match="averaged weights only"):
        load(tmp_path / "averaged.pth", settings=SETTINGS, ema=False)
    torch.save({"model": small_state}, tmp_path / "raw.pth")
    with pytest.raises(ValueError, match="no averaged weights"):
        load(tmp_path / "raw.pth", settings=SETTINGS, ema=True)


def test_averaged_copies_beside_the_weights(tmp_path: Path, small_state: dict[str, Tensor]) -> None:
    copies = {"ema_" + key.replace(".", "_"): value + 1 for key, value in small_state.items()}
    torch.save({"state_dict": {**small_state, **copies}, "meta": {}}, tmp_path / "both.pth")
    for ema, shift in ((None, 0), (False, 0), (True, 1)):
        model = load(tmp_path / "both.pth", settings=SETTINGS, ema=ema)
        assert torch.equal(model.head.classifier.bias, small_state["head.bias"] + shift)
    del copies["ema_head_bias"]
    torch.save({"state_dict": {**small_state, **copies}}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="ema_head_bias"):
        load(tmp_path / "part.pth", settings=SETTINGS, ema=True)


def test_stored_configuration_describes_the_model(small_file: Path, small: Classifier, same_weights: Same) -> None:
    model = load(small_file)
    same_weights(model, small)
    assert isinstance(model, Classifier) and not model.training
    assert (model.config.preprocess.size, model.config.backbone.drop_path_rate) == (96, 0.1)


@pytest.mark.parametrize("layout", ["safetensors", "shards", "bin"])
def test_transformers_folders(
    tmp_path: Path, small: Classifier, small_state: dict[str, Tensor], same_weights: Same, layout: str
) -> None:
    state = to_huggingface(small_state)
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, "model_type": "internimage"}))
    if layout == "safetensors":
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    elif layout == "bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        names = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(state)}
        for name in set(names.values()):
            save_file({key: value for key, value in state.items() if names[key] == name}, tmp_path / name)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    same_weights(load(tmp_path), small)
    if layout == "safetensors":  # the file inside of the folder finds its configuration, too
        same_weights(load(tmp_path / "model.safetensors"), small)
    if layout == "shards":
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
            load(tmp_path)


def test_an_index_cannot_point_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, "model_type": "internimage"}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ValueError, match="outside of its folder"):
        load(tmp_path)


def test_folders_without_a_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, "model_type": "internimage"}))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load(tmp_path)


def test_mismatches_list_everything(small_state: dict[str, Tensor]) -> None:
    state = dict(small_state)
    del state["patch_embed.conv1.bias"], state["levels.2.blocks.1.gamma1"]
    state["levels.2.blocks.7.norm1.0.weight"] = torch.ones(64)
    state["head.bias"] = torch.ones(6)
    with pytest.raises(CheckpointMismatch) as caught:
        from_original(SETTINGS, state)
    error = caught.value
    assert error.missing == ("backbone.patch_embed.conv1.bias", "backbone.levels.2.blocks.1.gamma1")
    assert error.unexpected == ("backbone.levels.2.blocks.7.norm1.weight",)
    assert error.wrong_shape == (("head.classifier.bias", (5,), (6,)),)


def test_another_number_of_classes_needs_asking(small_file: Path, small: Classifier) -> None:
    settings = {**SETTINGS, "num_classes": 7}
    with pytest.raises(CheckpointMismatch, match="give num_classes"):
        load(small_file, settings=settings)
    model = load(small_file, num_classes=7)
    assert model.head.classifier.weight.shape == (7, 192)
    assert 0.01 < model.head.classifier.weight.std() < 0.03 and not model.head.classifier.bias.any()
    assert torch.equal(model.head.conv.weight, small.head.conv.weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_are_reported(small_state: dict[str, Tensor], value: float) -> None:
    small_state["levels.1.blocks.0.mlp.fc1.weight"][3, 4] = value
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 tensors, first backbone\.levels\.1\.blocks\.0"):
        from_original(SETTINGS, small_state)


def test_large_finite_numbers_are_not_broken(small_state: dict[str, Tensor]) -> None:
    small_state["levels.1.blocks.0.mlp.fc1.weight"].fill_(3e38)
    assert from_original(SETTINGS, small_state).backbone.levels[1].blocks[0].mlp.fc1.weight[0, 0] == 3e38


def test_rows_of_22k_classes_become_1000(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    state = {**small_state, "head.weight": torch.rand(21841, 192), "head.bias": torch.rand(21841)}
    torch.save({"model": state}, tmp_path / "large.pth")
    model = load(tmp_path / "large.pth", settings={**SETTINGS, "num_classes": 21841}, num_classes=1000)
    rows = list(rows_22k_to_1k())
    assert torch.equal(model.head.classifier.weight, state["head.weight"][rows])
    assert torch.equal(model.head.classifier.bias, state["head.bias"][rows])
    assert model.config.class_names == label_set("imagenet_1k").class_names


def test_a_removed_center_is_taken_out_of_full_weights(small_state: dict[str, Tensor]) -> None:
    model = from_original({**SETTINGS, "remove_center": True}, small_state)
    full = small_state["levels.0.blocks.0.dcn.mask.bias"]
    kept = model.backbone.levels[0].blocks[0].dcn.mask.bias
    assert torch.equal(kept, torch.cat([full[:4], full[5:]]))


def test_norms_that_the_original_keeps_without_use_are_left_out(small_state: dict[str, Tensor]) -> None:
    extra = {
        key.replace("norm1", f"res_post_norm{i}"): value
        for key, value in small_state.items()
        for i in (1, 2)
        if ".blocks." in key and ".norm1." in key
    }
    model = from_original({**SETTINGS, "res_post_norm": True}, {**small_state, **extra})
    assert not any("res_post_norm" in key for key in model.state_dict())


def test_saving_and_loading_is_exact(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    path = save_model(pico, tmp_path / "pico.safetensors", info={"top1": 93.5})
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    model = load(path)
    same_weights(model, pico)
    assert isinstance(model, Classifier) and model.config == pico.config
    checkpoint = read_checkpoint(path)
    assert checkpoint.info == {"top1": 93.5} and isinstance(checkpoint.config, ClassifierConfig)


def test_saving_a_backbone(tmp_path: Path, same_weights: Same) -> None:
    backbone = InternImage(variant("internimage_pico"))
    model = load(save_model(backbone, tmp_path / "backbone.safetensors"))
    same_weights(model, backbone)
    assert isinstance(model, InternImage) and model.config == backbone.config and not model.training
    with pytest.raises(ValueError, match="num_classes"):
        load(tmp_path / "backbone.safetensors", num_classes=3)
    with pytest.raises(ValueError, match="bare backbone"):
        create("classifier", weights=tmp_path / "backbone.safetensors")


def test_half_precision_halves_the_file(tmp_path: Path, pico: Classifier) -> None:
    full = save_model(pico, tmp_path / "full.safetensors")
    half = save_model(pico, tmp_path / "half.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.55 * full.stat().st_size
    model = load(half)
    assert model.dtype == torch.float32 and load(half, dtype=None).dtype == torch.float16
    expected = pico.backbone.patch_embed.conv1.weight.half().float()
    assert torch.equal(model.backbone.patch_embed.conv1.weight, expected)
    assert model.head.norm.num_batches_tracked.dtype == torch.int64
    with torch.no_grad():
        pico.head.classifier.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"head\.classifier\.bias holds values"):
        save_model(pico, tmp_path / "half.safetensors", dtype=torch.float16)
    assert load(half).config == pico.config


def test_channels_last_weights_are_saved(tmp_path: Path, pico: Classifier, same_weights: Same) -> None:
    path = save_model(pico.to(memory_format=torch.channels_last), tmp_path / "pico.safetensors")
    same_weights(load(path), pico)


def test_wrong_arguments_of_saving(tmp_path: Path, pico: Classifier) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_model(pico, tmp_path / "pico.pth")
    with pytest.raises(ValueError, match="floating type"):
        save_model(pico, tmp_path / "pico.safetensors", dtype=torch.int8)
    with pytest.raises(TypeError, match="Linear"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "x.safetensors")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="JSON"):
        save_model(pico, tmp_path / "x.safetensors", info={"tensor": torch.ones(1)})
    with torch.device("meta"):
        empty = InternImage(variant("internimage_pico"))
    with pytest.raises(ValueError, match="meta device"):
        save_model(empty, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, pico: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model(pico, tmp_path / "pico.safetensors")
    before = path.read_bytes()

    def full_disk(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("internimage.checkpoints.save.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(pico, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["pico.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"task": "poetry"}, "task 'poetry'"),
        ({"config": {"colour": "red"}}, "no field colour"),
        ({"config": []}, "must be an object"),
        ({"config": {"num_classes": "4"}}, "num_classes must be int"),
        ({"config": {"num_classes": True}}, "num_classes must be int"),
        ({"config": {"head": "poem"}}, "must be one of"),
        ({"config": {"preprocess": {"mean": [0.5]}}}, "one value for each channel"),
        ({"config": {}}, "missing"),
    ],
)
def test_damaged_descriptions_are_explained(
    tmp_path: Path, pico: Classifier, change: dict[str, Any], message: str
) -> None:
    from safetensors import safe_open

    path = save_model(pico, tmp_path / "pico.safetensors")
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["internimage"])
    save_file(pico.state_dict(), path, metadata={"internimage": json.dumps({**content, **change})})
    with pytest.raises(ValueError, match=rf"pico\.safetensors.*{message}"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 64, b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": 1}'])
def test_damaged_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors is no readable safetensors"):
        load(path)


def test_truncated_safetensors(tmp_path: Path, pico: Classifier) -> None:
    path = save_model(pico, tmp_path / "pico.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no readable safetensors"):
        load(path)


def test_loaded_models_survive_their_file(small_file: Path, small: Classifier, same_weights: Same) -> None:
    model = load(small_file)
    small_file.write_bytes(b"\x00" * small_file.stat().st_size)
    same_weights(model, small)


def test_portions_change_nothing(
    small_file: Path, small: Classifier, same_weights: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internimage.checkpoints.fill.PORTION_BYTES", 1000)
    same_weights(load(small_file), small)
