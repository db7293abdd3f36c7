"""What Python does around the kernels of a block is counted, so that it does not grow unseen: benchmarks/host.py."""

from __future__ import annotations

import pytest

from benchmarks.host import count_calls, measure
from internimage.ops.runtime import library


def test_calls_are_counted() -> None:
    calls = count_calls(lambda: [abs(-1), abs(-2)])
    assert (calls["call"], calls["c_call"]) == (1, 2)


@pytest.mark.skipif(library.missing_reason() is not None, reason="no compiled kernels")
@pytest.mark.parametrize(
    ("name", "form", "most"),
    [
        ("internimage_t", "eager", 160),
        ("internimage_t", "fused", 240),
        ("flash_internimage_t", "eager", 130),
        ("flash_internimage_t", "fused", 175),
    ],
)
def test_calls_on_the_way_of_a_cpu(name: str, form: str, most: int) -> None:
    row = measure(name, "cpp", form, "cpu", 0.0)
    assert 0 < row["launches"] <= 7
    assert 50 < row["python_calls"] <= most


@pytest.mark.parametrize(
    ("name", "form", "launches", "most"),
    [
        ("internimage_t", "eager", 5, 360),
        ("internimage_t", "fused", 6, 345),
        ("flash_internimage_t", "eager", 4, 285),
        ("flash_internimage_t", "fused", 5, 295),
    ],
)
def test_calls_on_the_way_of_a_gpu(name: str, form: str, launches: int, most: int) -> None:
    pytest.importorskip("triton")
    row = measure(name, "triton", form, "cpu", 0.0)
    assert row["launches"] == launches
    assert 50 < row["python_calls"] <= most
