"""The arguments of the compiled kernels, field by field the structs of the same names in cpp/abi.h.

Fields are given by name; what is not given is zero or a null pointer. Without slots for more (`__slots__`), a name that
is no field raises AttributeError instead of being kept as an attribute.
"""

from __future__ import annotations

import ctypes
from typing import Any

_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_TEAM = (("start_team", _POINTER),)


def _fields(kind: Any, names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, kind) for name in names.split())


class KernelArgs(ctypes.Structure):
    """What `library.call` fills in: how a kernel runs."""

    __slots__ = ()
    data_type: int
    threads: int
    start_team: int


class WindowArgs(KernelArgs):
    """One call of a window operator (dcnv3, dcnv4)."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "x offset weight grad_out out grad_x grad_offset grad_weight"),
        *_fields(_INTEGER, "batch height width out_height out_width groups channels points x_stride"),
        *_fields(_INTEGER, "offset_stride offset_group weight_stride weight_group"),
        *_fields(_INTEGER, "grad_offset_stride grad_offset_group grad_weight_stride grad_weight_group"),
        *_fields(_INTEGER, "kernel_h kernel_w stride_h stride_w pad_h pad_w dilation_h dilation_w"),
        *_fields(_INTEGER, "remove_center softmax data_type threads"),
        *_fields(_REAL, "offset_scale"),
        *_TEAM,
    )


class ResidualArgs(ctypes.Structure):
    """How the output of a residual branch is added to its shortcut."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "shortcut sum gamma weight_a bias_a weight_b bias_b normed"),
        *_fields(_REAL, "eps"),
    )


class RowArgs(KernelArgs):
    """One step on channel rows."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "y"),
        ("residual", ResidualArgs),
        *_fields(_INTEGER, "rows channels operation data_type threads"),
        *_TEAM,
    )


class LinearArgs(KernelArgs):
    """One linear layer."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "x weight bias out"),
        *_fields(_INTEGER, "rows inputs outputs activation data_type threads"),
        *_TEAM,
    )


class PerceptronArgs(KernelArgs):
    """One perceptron with its residual sum."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "x weight_1 bias_1 weight_2 bias_2"),
        ("residual", ResidualArgs),
        *_fields(_INTEGER, "rows inputs hidden outputs activation data_type threads"),
        *_TEAM,
    )


class ConvArgs(KernelArgs):
    """One convolution with its norm."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "x weight bias"),
        ("residual", ResidualArgs),
        *_fields(_INTEGER, "batch height width channels out_height out_width kernel stride padding"),
        *_fields(_INTEGER, "rows inputs outputs activation data_type threads"),
        *_TEAM,
    )


class DepthwiseArgs(KernelArgs):
    """One depth-wise convolution with its norm and GELU."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "x weight bias norm_weight norm_bias out"),
        *_fields(_INTEGER, "batch height width channels kernel data_type threads"),
        *_fields(_REAL, "eps"),
        *_TEAM,
    )


class AttentionArgs(KernelArgs):
    """One call of multi-scale deformable attention."""

    __slots__ = ()
    _fields_ = (
        *_fields(_POINTER, "value location weight grad_out out grad_value grad_location grad_weight shapes"),
        *_fields(_INTEGER, "batch pixels queries heads channels levels points value_stride"),
        *_fields(_INTEGER, "normalized softmax data_type threads"),
        *_TEAM,
    )
