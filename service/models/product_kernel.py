"""The kernels in ``int8_kernel.c``, ``bfloat16_kernel.c``, ``tiles_kernel.c``, ``float32_kernel.c``: a linear layer and LoRA."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.models import kernels, lora_kernel
from service.models.values import zeros

MAX_INPUTS = 8192  # as in the C files
TILE = 16  # outputs, and pairs of inputs, of a tile
GROUP = {torch.int8: 4, torch.bfloat16: 2, torch.float32: 1, torch.float16: 1}  # inputs that one instruction takes

Kernel = Literal["int8_linear", "bfloat16_linear", "float32_linear", "float16_linear"]


class Layer(ctypes.Structure):
    """A layer's sizes, and where its numbers are."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("inputs", "outputs")),
        *((name, ctypes.c_void_p) for name in ("values", "bias", "smoothing", "scales", "sums")),
    )


class _Job(ctypes.Structure):
    _fields_ = (
        ("y", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "rows", "gelu")),
        ("layer", ctypes.POINTER(Layer)),
        ("lora", ctypes.POINTER(lora_kernel.Job)),
        *((name, ctypes.c_void_p) for name in ("residual", "weight", "bias")),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("x_tiled", "y_tiled")),
    )


int8_available: bool = kernels.built("int8_linear") and kernels.has("avx512_vnni")
bfloat16_available: bool = kernels.built("bfloat16_linear")
float32_available: bool = kernels.built("float32_linear")


@dataclass(frozen=True, slots=True)
class Weights:
    """A layer's weights in the order that its kernel reads, and what it needs to know of each input and output.

    Made by :func:`in_int8`, :func:`in_bfloat16` and :func:`in_float32`; ``tensors`` are what ``layer`` points to. Where they are
    ``tiled``, so are the factors of low-rank products beside them (``lora.py``).
    """

    kernel: Kernel
    layer: Layer
    tensors: Sequence[Tensor]
    tiled: bool


def in_int8(values: Tensor, scales: Tensor, bias: Tensor, smoothing: Tensor) -> Weights:
    """Lay out int8 ``values`` (out, in) with ``scales`` and ``bias`` (out,) and ``smoothing`` (in,), which x is multiplied by."""
    strips, sums = _strips(values), values.sum(1, dtype=torch.int32)
    others = [_filled(bias, _strip()), _filled(smoothing, kernels.LANES), _filled(scales, _strip()), _filled(sums, _strip())]
    return _weights("int8_linear", values, [strips, *others])


def in_bfloat16(weight: Tensor, bias: Tensor) -> Weights:
    """Lay out ``weight`` (out, in), whose inputs are even, and ``bias`` (out,), which stays in float32."""
    tiled = kernels.built("weights_in_tiles")
    laid_out = (_tiles if tiled else _strips)(weight.bfloat16())
    return _weights("bfloat16_linear", weight, [laid_out, _filled(bias.float(), _strip())], tiled=tiled)


def in_float32(weight: Tensor, bias: Tensor) -> Weights:
    """Lay out ``weight`` (out, in) and ``bias`` (out,); one in float16 stays so, and computes the same from half the bytes."""
    kept = weight if weight.dtype == torch.float16 else weight.float()
    kernel: Kernel = "float16_linear" if kept.dtype == torch.float16 else "float32_linear"
    return _weights(kernel, kept, [_strips(kept), _filled(bias.float(), _strip())])


def linear(y: Tensor, x: Tensor, weights: Weights, *, gelu: bool = False, lora: lora_kernel.Job | None = None) -> None:
    """Write ``x`` (rows, in) times the weights to ``y`` (rows, out), both float32 or both bfloat16, contiguous.

    ``lora``, over the same ``x`` and ``y``, is done tile by tile after that, or in the same sums; with ``gelu`` it activates the
    rows that it changes. Raises :class:`ValueError` for what it cannot read.
    """
    kernels.check(x, y)
    layer = weights.layer
    if x.shape[1] != layer.inputs or y.shape != (len(x), layer.outputs):
        raise ValueError(f"{tuple(x.shape)} to {tuple(y.shape)} by a layer from {layer.inputs} to {layer.outputs}")
    job = _Job(
        y.data_ptr(), x.data_ptr(), x.dtype == torch.bfloat16, len(x), gelu, ctypes.pointer(layer),
        ctypes.pointer(lora) if lora else None,
    )  # fmt: skip
    if not kernels.call(weights.kernel, job):
        raise ValueError(f"{weights.kernel} does not read {layer.inputs} inputs of {x.dtype}")


def _weights(kernel: Kernel, weight: Tensor, tensors: Sequence[Tensor], *, tiled: bool = False) -> Weights:
    outputs, inputs = weight.shape
    return Weights(kernel, Layer(inputs, outputs, *(tensor.data_ptr() for tensor in tensors)), tensors, tiled)


def float32_bytes(weight: Tensor) -> int:
    """What :func:`in_float32` makes of such a weight and its bias take."""
    outputs, inputs = kernels.padded(weight.shape[0], _strip()), weight.shape[1]
    return outputs * (inputs * (2 if weight.dtype == torch.float16 else 4) + 4)


def _strip() -> int:
    """The outputs whose weights lie together."""
    return kernels.constant("strip_outputs")


def _tiles(weight: Tensor) -> Tensor:
    """Weights (out, in) in panels of outputs, of steps of inputs, of tiles: of pairs of inputs, of outputs."""
    outputs, inputs = weight.shape
    whole = weight.new_zeros(kernels.padded(outputs, _strip()), kernels.padded(inputs, 2 * TILE))
    whole[:outputs, :inputs] = weight
    tiles = whole.view(-1, 2, TILE, whole.shape[1] // (2 * TILE), TILE, 2).permute(0, 3, 1, 4, 2, 5)
    return _kept(tiles)


def _strips(values: Tensor) -> Tensor:
    outputs, inputs = values.shape
    group = GROUP[values.dtype]
    strip = _strip()
    whole = values.new_zeros(kernels.padded(outputs, strip), kernels.padded(inputs, group))
    whole[:outputs, :inputs] = values
    strips = whole.view(-1, strip, whole.shape[1] // group, group).transpose(1, 2)
    return _kept(strips)


def _kept(laid_out: Tensor) -> Tensor:
    return zeros(laid_out.numel(), laid_out.device, laid_out.dtype).view(laid_out.shape).copy_(laid_out)


def _filled(values: Tensor, step: int) -> Tensor:
    whole = values.new_zeros(kernels.padded(len(values), step))
    whole[: len(values)] = values
    return whole
