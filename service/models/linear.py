"""A frozen linear layer in the precision that the server runs in, with its activation fused where the library can.

On x86 torch's own float32 product goes through MKL, which on other makers' processors leaves half of the machine unused;
oneDNN, which torch brings too, does not (docs/performance.md). It also adds the bias and applies the activation in the
same pass, and keeps weights in the order that its kernels read.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear

from service.models import product_kernel
from service.models.activations import FUSED, activated
from service.models.lora import Runs, Site, add_products
from service.models.onednn import has_kernels

Dtype = Literal["fp32", "bf16", "int8"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)  # from the slowest to the fastest, where there are instructions for it
# What may be chosen unasked, as labels stay the same. In int8 one in 75 to 500 changes (`make quality`).
FAITHFUL: tuple[Dtype, ...] = ("fp32", "bf16")
COMPUTED_IN = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}  # between the products
TYPICAL_ROWS = 1024  # the order of packed weights is chosen for so many rows, and right for any


def computes_in(dtype: Dtype, device: torch.device) -> bool:
    """Whether the device has instructions for ``dtype``; without them it would be slower than float32, not faster."""
    if dtype == "fp32":
        return True
    if dtype == "int8":
        return device.type == "cpu" and product_kernel.int8_available
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_kernels(COMPUTED_IN[dtype], device)


def fastest(device: torch.device) -> Dtype:
    """The last of :data:`FAITHFUL` that the device has instructions for."""
    return next(dtype for dtype in reversed(FAITHFUL) if computes_in(dtype, device))


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x weightᵀ + bias`` with weights that lie as they came."""
    return _fused(x, weight, bias, None) if has_kernels(x.dtype, x.device) else linear(x, weight, bias)


def _fused(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None) -> Tensor:
    if activation is not None and activation not in FUSED:
        return activated(_fused(x, weight, bias, None), activation)
    operation, algorithm = FUSED[activation] if activation else ("none", "")
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, operation, [], algorithm)
    return y


class Linear:
    """``activation(x weightᵀ + bias)`` over rows: ``x`` (n, in) gives (n, out), both in the layer's type."""

    tiled = False  # whether it reads factors in tiles

    def __init__(self, weight: Tensor, bias: Tensor, dtype: Dtype, device: torch.device) -> None:
        self.inputs, self.outputs = weight.shape[1], weight.shape[0]
        kind = COMPUTED_IN[dtype]
        self._weight, self._bias = weight.to(device, kind), bias.to(device, kind)
        self._fused = has_kernels(kind, device)
        if self._fused:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, TYPICAL_ROWS)

    def __call__(self, x: Tensor, activation: str | None = None) -> Tensor:
        """The layer's output; ``activation`` is one of transformers' names."""
        if not self._fused:
            return activated(linear(x, self._weight, self._bias), activation)
        return _fused(x, self._weight, self._bias, activation)

    def adapted(self, x: Tensor, site: Site, runs: Runs, activation: str | None = None) -> Tensor:
        """The same with every run's low-rank products added before the activation."""
        return add_products(self(x), x, site, runs, activation)
