"""Writing our weight files: safetensors with the model's document in the header, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from internimage.backbones import InternImage
from internimage.checkpoints.formats.containers import without_wrappers
from internimage.checkpoints.header import HEADER_KEY, to_json
from internimage.files import replacing
from internimage.flow import Network, TaskModel


def save_model(
    model: Network,
    path: str | os.PathLike[str],
    *,
    info: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model to one safetensors file that `internimage.load` rebuilds exactly.

    Args:
        model: a model of this package or a bare backbone, also in the wrappers of torch.compile, data parallel and
            averaged training.
        path: where to write; an existing file is replaced only when the new one is complete.
        info: notes to keep in the file, for example metrics; JSON types only.
        dtype: floating type in the file, None keeps the model's; `torch.float16` halves the size.

    Returns:
        The path written.

    Raises:
        TypeError: the model or `info` cannot be described.
        ValueError: `path` does not end in ".safetensors", `dtype` is no floating type or a value does not fit it.
        OSError: the file cannot be written; nothing is left behind.

    Example:
        >>> import tempfile
        >>> from internimage.backbones import InternImage, variant
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(InternImage(variant("internimage_pico")), f"{folder}/pico.safetensors").name
        'pico.safetensors'
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, given {path.name!r}; other formats: internimage.convert")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating type, given {dtype}")
    network = unwrapped(model)
    if not isinstance(network, TaskModel | InternImage):
        raise TypeError(f"expected a model of this package or an InternImage backbone, given {type(network).__name__}")
    # One key only: with more, the order in the file changes from run to run.
    header = {HEADER_KEY: to_json(network.config, info)}
    tensors = {without_wrappers(key): _prepared(key, value, dtype) for key, value in network.state_dict().items()}
    write_safetensors(tensors, path, header)
    return path


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of the wrappers of torch.compile, data parallel and averaged training.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Identity()))
        Identity()
    """
    while isinstance(inner := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        model = inner
    return model


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, header: Mapping[str, str]) -> None:
    """Write contiguous CPU tensors and string metadata, whole or not at all."""
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(header))
        except SafetensorError as error:  # a full disk, a lost mount
            raise OSError(f"cannot write {path} (is the disk full?): {error}") from error


def write_torch_file(content: Mapping[str, object], path: Path) -> Path:
    """Write with `torch.save`, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # what torch makes of a full disk
            reason = str(error).partition("\n")[0][:200]
            raise OSError(f"cannot write {path} (is the disk full?): {reason}") from error
    return path


def _prepared(key: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a tensor as it is stored: on the CPU, contiguous, of the wished type."""
    if value.is_meta:
        raise ValueError(f"{key} has no values (meta device); load weights before saving")
    value = value.detach().cpu()
    if dtype is not None and value.is_floating_point():
        narrowed = value.to(dtype)
        if not narrowed.isfinite().all() and value.isfinite().all():
            raise ValueError(f"{key} holds values that {dtype} cannot express; choose another dtype")
        value = narrowed
    return value.contiguous()
