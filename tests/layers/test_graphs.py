"""Recorded calls of a network: on a GPU real ones (`-m gpu`), elsewhere what keeps and drops them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import internimage as ii
from internimage.backbones import InternImage, variant
from internimage.layers.fused import graphs
from internimage.layers.fused.graphs import Graph, Graphs

only_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
CONFIG = replace(variant("internimage_pico"), depths=(1, 1, 2, 1))
SIZES = ((1, 3, 64, 64), (2, 3, 40, 72), (1, 3, 64, 64), (3, 3, 33, 47), (2, 3, 40, 72))


def network(config=CONFIG) -> InternImage:
    torch.manual_seed(0)
    model = InternImage(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


class Recorder:
    """Stands for the recording of a GPU: a replay runs the network again, into the same outputs."""

    def __init__(self) -> None:
        self.recorded, self.replays = 0, 0

    def record(self, pixels: Tensor, forward, pool) -> Graph:
        self.recorded += 1
        own = pixels.clone()
        maps = forward(own)

        def replay() -> None:
            self.replays += 1
            for kept, new in zip(maps, forward(own), strict=True):
                kept.copy_(new)

        return Graph(replay, own, maps)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A CPU in the place of a GPU."""
    stand_in = Recorder()
    monkeypatch.setattr(graphs, "record", stand_in.record)
    monkeypatch.setattr(Graphs, "on", "cpu")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    yield stand_in


def test_a_size_is_recorded_once_and_the_oldest_is_dropped(recorder: Recorder) -> None:
    plain, model = network(), network().fuse(graphs=2)
    with torch.inference_mode():
        for seen, size in zip((1, 2, 2, 3, 4), (*SIZES[:3], SIZES[3], SIZES[1]), strict=True):
            pixels = torch.randn(size)
            for got, want in zip(model(pixels).maps, plain(pixels).maps, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
            assert recorder.recorded == seen


def test_outputs_belong_to_the_caller(recorder: Recorder) -> None:
    model = network().fuse(graphs=1)
    with torch.inference_mode():
        first = model(torch.zeros(SIZES[0])).maps
        kept = [each.clone() for each in first]
        model(torch.ones(SIZES[0]))
    assert recorder.replays == 2
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in first)


def test_graphs_serve_only_plain_inference(recorder: Recorder) -> None:
    model, pixels = network().fuse(graphs=1), torch.randn(SIZES[0])
    model(pixels)  # with gradients
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(pixels)
    assert recorder.recorded == 0
    seen: list[object] = []
    with torch.no_grad():
        model(pixels)
        handle = model.levels[1].register_forward_hook(lambda *values: seen.append(values))
        model(pixels)
        handle.remove()
        assert (recorder.replays, len(seen)) == (1, 1)
        model(pixels)
    assert recorder.replays == 2


@pytest.mark.parametrize("change", ["load a part", "load", "train", "move", "fuse", "copy"])
def test_what_changes_weights_drops_graphs(recorder: Recorder, change: str) -> None:
    model, pixels = network().fuse(graphs=1), torch.randn(SIZES[0])
    other = {key: value + 0.01 for key, value in network().state_dict().items()}
    with torch.no_grad():
        model(pixels)
        if change == "load a part":
            part = {key.removeprefix("levels.0."): value for key, value in other.items() if key.startswith("levels.0.")}
            model.levels[0].load_state_dict(part)
        elif change == "load":
            model.load_state_dict(other)
        elif change == "train":
            model.train().eval()
        elif change == "move":
            model.double().float()
        elif change == "fuse":
            model.fuse()
        else:
            model = copy.deepcopy(model)
        model(pixels)
    assert recorder.replays == 1


def test_a_model_hands_them_to_its_backbone(recorder: Recorder) -> None:
    model = ii.create("upernet", backbone=CONFIG, num_classes=2).eval().fuse(graphs=1)
    with torch.inference_mode():
        model(torch.randn(SIZES[0]))
        model(torch.randn(SIZES[0]))
    assert (recorder.recorded, recorder.replays) == (1, 2)


def test_a_composite_backbone_records_both_parts_at_once(recorder: Recorder) -> None:
    from internimage.backbones import CompositeInternImage

    torch.manual_seed(0)
    model, pixels = CompositeInternImage(CONFIG).eval(), torch.randn(SIZES[0])
    with torch.inference_mode():
        want = model(pixels).maps
        got = model.fuse(graphs=1)(pixels).maps
    assert recorder.recorded == 1
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(ValueError, match=r'graphs=2 needs a model on a GPU, given cpu; call model.to\("cuda"\) first'):
        network().fuse(graphs=2)
    with pytest.raises(ValueError, match="graphs must be 0 or more, given -1"):
        network().fuse(graphs=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["internimage_pico", "flash_internimage_t"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about graphs without launches
class TestOnAGPU:
    """Real graphs."""

    pytestmark = only_gpu

    def test_replays_equal_calls(self, name: str, dtype: torch.dtype) -> None:
        config = replace(variant(name), depths=(1, 1, 2, 1))
        plain = network(config).to("cuda", dtype).fuse()
        model = network(config).to("cuda", dtype).fuse(graphs=2)
        with torch.inference_mode():
            for size in SIZES:
                pixels = torch.randn(size, device="cuda", dtype=dtype)
                for got, want in zip(model(pixels).maps, plain(pixels).maps, strict=True):
                    assert torch.equal(got, want)

    def test_streams_do_not_mix(self, name: str, dtype: torch.dtype) -> None:
        model = network(replace(variant(name), depths=(1, 1, 2, 1))).to("cuda", dtype).fuse(graphs=4)
        inputs = [torch.randn(2, 3, 64, 64, device="cuda", dtype=dtype) for _ in range(2)]
        streams, got = [torch.cuda.Stream() for _ in inputs], []
        with torch.inference_mode():
            want = [model(pixels).maps[-1] for pixels in inputs]
            torch.cuda.synchronize()
            for _ in range(5):
                for stream, pixels in zip(streams, inputs, strict=True):
                    with torch.cuda.stream(stream):
                        got.append(model(pixels).maps[-1])
        torch.cuda.synchronize()
        assert all(torch.equal(each, want[i % 2]) for i, each in enumerate(got))
