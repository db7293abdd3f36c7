"""Find and load the compiled kernels: a plain shared library with a C interface, called through ctypes."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path

import torch

from internimage.ops.runtime.abi import KernelArgs

ABI_VERSION = 7
WORK_PER_THREAD = 2**17  # multiply-adds, about 10 microseconds; starting a thread of a waiting team takes a few
INSTRUCTION_SETS = ("baseline", "AVX2", "AVX-512", "AVX-512 BF16", "AMX")
LIMIT_VARIABLE = "INTERNIMAGE_INSTRUCTION_SET"  # for a whole process what `limit_instruction_set` is for a moment
DATA_TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_LINEAR_MISSING = (
    None,
    "the compiled product needs AVX-512, built with GCC or Clang; torch's is faster without it",
    "torch's bfloat16 products use the AMX tiles of this processor, the compiled product does not",
)


def path() -> Path:
    """Where the library is expected: beside this file."""
    return Path(__file__).with_name("kernels.dll" if sys.platform == "win32" else "kernels.so")


@functools.cache
def missing_reason() -> str | None:
    """Why the compiled kernels cannot be used, or None when they can."""
    if not path().is_file():
        return (
            "the compiled kernels are not installed (this install had no C++ compiler or no CMake); "
            "install both and run `pip install --force-reinstall --no-deps` on the package, "
            "or in a checkout `cmake -S . -B build && cmake --build build`"
        )
    try:
        found = int(ctypes.CDLL(str(path())).internimage_abi_version())
    except (OSError, AttributeError) as error:
        return f"the compiled kernels cannot be loaded: {error}"
    if found != ABI_VERSION:
        return f"the compiled kernels are of another version ({found}, expected {ABI_VERSION}); build them again"
    return None


@functools.cache
def kernels() -> ctypes.CDLL:
    """The loaded library; call it only when `missing_reason()` is None."""
    library = ctypes.CDLL(str(path()))
    steps = ("rows", "depthwise", "linear", "perceptron", "conv")
    library.internimage_linear_missing.argtypes = (ctypes.c_int64,)
    for stem in (*steps, "window_forward", "window_backward", "attention_forward", "attention_backward"):
        function = getattr(library, f"internimage_{stem}")
        function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_int
    library.internimage_limit_instruction_set(_limit())
    return library


@functools.cache
def start_team() -> int:
    """Address of GOMP_parallel in the OpenMP runtime that torch already loaded, or 0 for plain threads.

    Using torch's own runtime keeps one team of worker threads in the process instead of two that compete.
    """
    if not sys.platform.startswith("linux"):
        return 0
    home = Path(torch.__file__).parent
    bundled = [p for folder in ("lib", "../torch.libs") for p in sorted((home / folder).glob("lib*omp*.so*"))]
    for candidate in [*map(str, bundled), "libgomp.so.1"]:
        try:
            return ctypes.cast(ctypes.CDLL(candidate).GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


def instruction_set() -> str:
    """Name of the instruction set in use; "AMX" is that of "AVX-512 BF16" but for bfloat16 linear layers."""
    return INSTRUCTION_SETS[int(kernels().internimage_instruction_set())]


def linear_missing_reason(dtype: torch.dtype) -> str | None:
    """Why linear layers of this dtype should not run through the kernels here, or None when they should."""
    return _LINEAR_MISSING[int(kernels().internimage_linear_missing(DATA_TYPES[dtype]))]


def emulates_bfloat16() -> bool:
    """Whether torch has no instructions here for layers in bfloat16: they take several times as long as in float32.

    The limit of the kernels' instruction set counts, too.
    """
    ops = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and ops._is_mkldnn_bf16_supported()):
        return True
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    return is_x86 and missing_reason() is None and instruction_set() not in ("AVX-512 BF16", "AMX")


def limit_instruction_set(name: str) -> str:
    """Use at most instruction set `name` from now on, for tests and measurements; returns the one in use.

    The environment variable INTERNIMAGE_INSTRUCTION_SET, read when the kernels are loaded, is a limit that this
    function does not lift.
    """
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"instruction set must be one of {INSTRUCTION_SETS}, given {name!r}")
    limit = min(INSTRUCTION_SETS.index(name), _limit())
    return INSTRUCTION_SETS[int(kernels().internimage_limit_instruction_set(limit))]


def _limit() -> int:
    name = os.environ.get(LIMIT_VARIABLE, INSTRUCTION_SETS[-1])
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"{LIMIT_VARIABLE} must be one of {INSTRUCTION_SETS}, given {name!r}")
    return INSTRUCTION_SETS.index(name)


def team_size(work: int, work_per_thread: int = WORK_PER_THREAD) -> int:
    """Threads worth starting for `work` multiply-adds, at most torch's number."""
    return min(torch.get_num_threads(), 1 + work // work_per_thread)


def call(function: str, args: KernelArgs, dtype: torch.dtype, threads: int) -> None:
    """Run one entry point on data of `dtype`.

    Raises:
        MemoryError: its scratch buffers do not fit.
        RuntimeError: the instruction set in use has no such kernel.
    """
    args.data_type, args.threads, args.start_team = DATA_TYPES[dtype], threads, start_team()
    code = getattr(kernels(), function)(ctypes.byref(args))
    if code == 1:
        raise MemoryError(f"{function}: not enough memory for the kernels' scratch buffers")
    if code != 0:
        raise RuntimeError(f"{function}: no kernel for instruction set {instruction_set()}, given code {code}")
