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
from transformers.activations import ACT2FN

from service.models.onednn import has_kernels

Dtype = Literal["fp32", "bf16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)  # from the slowest to the fastest, where there are instructions for it
COMPUTED_IN = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Activations by transformers' name, as the fused product calls them: the operation and its algorithm.
FUSED = {"gelu": ("gelu", "none"), "gelu_new": ("gelu", "tanh"), "gelu_pytorch_tanh": ("gelu", "tanh"), "relu": ("relu", "")}
TYPICAL_ROWS = 1024  # the order of packed weights is chosen for so many rows, and right for any


def computes_in(dtype: Dtype, device: torch.device) -> bool:
    """Whether the device has instructions for ``dtype``; without them it would be slower than float32, not faster."""
    if dtype == "fp32":
        return True
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_kernels(COMPUTED_IN[dtype], device)


def fastest(device: torch.device) -> Dtype:
    """The last of :data:`DTYPES` that the device has instructions for."""
    return next(dtype for dtype in reversed(DTYPES) if computes_in(dtype, device))


class Linear:
    """``activation(x weightᵀ + bias)`` over rows: ``x`` (n, in) gives (n, out), both in the layer's type."""

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
        if activation is not None and activation not in FUSED:
            return activated(self(x), activation)
        operation, algorithm = FUSED[activation] if activation else ("none", "")
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, operation, [], algorithm)
        return y


def activated(y: Tensor, activation: str | None) -> Tensor:
    """An activation by transformers' name, in place where torch can; None leaves the values as they are."""
    if activation is None:
        return y
    operation, algorithm = FUSED.get(activation, (activation, ""))
    if operation == "gelu":
        # In place, which the functional form does not offer: a new tensor of this size costs more than the activation.
        result: Tensor = torch.ops.aten.gelu_(y, approximate=algorithm)
    else:
        result = ACT2FN[activation](y)
    return result
