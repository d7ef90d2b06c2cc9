"""Whether products and convolutions can go through oneDNN, which torch brings."""

from __future__ import annotations

import torch


def has_kernels(kind: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN computes in this type on the device, with instructions made for it."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and _multiplies_bfloat16())


def _multiplies_bfloat16() -> bool:
    # The library says yes to every processor with AVX-512, on most of which it only converts to float32 and back.
    flags = torch.cpu.get_capabilities()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and any(flags.get(f) for f in ("avx512_bf16", "amx_bf16", "bf16"))
