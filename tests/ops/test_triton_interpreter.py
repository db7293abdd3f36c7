"""Runs tests of kernels in Triton's interpreter, which has to be chosen before Python starts."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from internimage.ops import backends
from internimage.ops.runtime.triton import support as triton_support


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize(("name", "least"), [("test_triton.py", 25), ("fused/test_rows.py", 60)])
def test_kernels_in_the_interpreter(name, least):
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    file = Path(__file__).parent / name
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least


@pytest.mark.skipif(triton_support.interpreting(), reason="asks what holds without the interpreter")
def test_reasons():
    assert "run on cuda tensors, given cpu" in triton_support.missing_reason("cpu", torch.float32)
    assert "float64" in triton_support.missing_reason("cuda", torch.float64)


def test_triton_is_preferred_on_a_gpu():
    assert [*backends._TABLE["dcnv3"]] == ["cpp", "triton", "reference"]
