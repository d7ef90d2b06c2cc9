"""The kernel in ``int8_kernel.c``: a linear layer in int8, with every run's low-rank products."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from service.models import kernels, lora_kernel

MAX_INPUTS = 8192  # as in the C file
STRIP, GROUP = 64, 4


class _Job(ctypes.Structure):
    _fields_ = (
        ("y", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "rows", "inputs", "outputs", "gelu")),
        *((name, ctypes.c_void_p) for name in ("weight", "smoothing", "scales", "bias", "sums", "add", "lora")),
    )


def _available() -> bool:
    try:
        kernels.function("int8_linear")
    except RuntimeError:
        return False
    return kernels.has_vectors("avx512_vnni")


available: bool = _available()  # there was a compiler for it, and the processor has its instructions


@dataclass(frozen=True, slots=True)
class Weights:
    """A layer's weights in the order that the kernel reads, and what it needs to know of each input and output.

    Made by :func:`packed`.
    """

    inputs: int
    outputs: int
    values: Tensor
    smoothing: Tensor
    scales: Tensor
    bias: Tensor
    sums: Tensor


def packed(values: Tensor, scales: Tensor, bias: Tensor, smoothing: Tensor) -> Weights:
    """Lay out int8 ``values`` (out, in) with ``scales`` and ``bias`` (out,) and ``smoothing`` (in,), which x is multiplied by."""
    outputs, inputs = values.shape
    whole = torch.zeros(kernels.padded(outputs, STRIP), kernels.padded(inputs, GROUP), dtype=torch.int8)
    whole[:outputs, :inputs] = values
    strips = whole.view(-1, STRIP, whole.shape[1] // GROUP, GROUP).transpose(1, 2).contiguous()
    wide, deep = len(whole), kernels.padded(inputs)
    sums = whole.sum(1, dtype=torch.int32)
    return Weights(inputs, outputs, strips, _filled(smoothing, deep), _filled(scales, wide), _filled(bias, wide), sums)


def linear(y: Tensor, x: Tensor, weights: Weights, *, gelu: bool = False, lora: lora_kernel.Job | None = None) -> None:
    """Write ``x`` (rows, in) times the weights to ``y`` (rows, out), both float32 or both bfloat16, contiguous.

    ``lora`` is done tile by tile after that, whose own ``gelu`` then counts. Raises :class:`ValueError` for what it cannot read.
    """
    kernels.check(x, y)
    if x.shape[1] != weights.inputs or y.shape != (len(x), weights.outputs):
        raise ValueError(f"{tuple(x.shape)} to {tuple(y.shape)} by a layer from {weights.inputs} to {weights.outputs}")
    add, on = (_address(kernels.function("lora_tile")), ctypes.addressof(lora)) if lora else (None, None)
    job = _Job(
        y.data_ptr(), x.data_ptr(), x.dtype == torch.bfloat16, len(x), weights.inputs, weights.outputs, gelu and not lora,
        *(part.data_ptr() for part in (weights.values, weights.smoothing, weights.scales, weights.bias, weights.sums)), add, on,
    )  # fmt: skip
    if not kernels.call("int8_linear", job):
        raise ValueError(f"the kernel reads up to {MAX_INPUTS} inputs")


def _address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]  # a function of the library


def _filled(values: Tensor, count: int) -> Tensor:
    whole = torch.zeros(count)
    whole[: len(values)] = values
    return whole
