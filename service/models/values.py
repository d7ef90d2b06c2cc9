"""The numbers of adapters: checked to be finite, and copied into memory of their own (:mod:`service.memory` says why)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from service.memory import block

SMALL = 1 << 16  # bytes that may come from the heap: gaps of this size are filled again


def is_finite(tensor: Tensor) -> bool:
    """Whether every value of a floating-point tensor is finite."""
    if not tensor.numel():
        return True
    # The extremes are NaN if any value is. On halves that is ten times as fast as torch.isfinite; bytes have no kernel.
    low, high = (tensor if tensor.element_size() > 1 else tensor.float()).aminmax()
    return math.isfinite(low) and math.isfinite(high)


def zeros(count: int, device: torch.device, kind: torch.dtype = torch.float32) -> Tensor:
    """A vector of zeros."""
    if device.type != "cpu" or kind.itemsize * count < SMALL:
        return torch.zeros(count, device=device, dtype=kind)
    return torch.frombuffer(block(kind.itemsize * count), dtype=kind)


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """A float32 copy of a tensor."""
    return zeros(tensor.numel(), device).view(tensor.shape).copy_(tensor)
