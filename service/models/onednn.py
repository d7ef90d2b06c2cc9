"""Whether products and convolutions can go through oneDNN, which torch brings."""

from __future__ import annotations

import torch


def has_kernels(kind: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN computes in this type on the device, with instructions made for it."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
