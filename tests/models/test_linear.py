"""Which precision is chosen: by the processor's instructions, not by hope."""

from __future__ import annotations

import torch

from service.models import product_kernel
from service.models.linear import computes_in, fastest

CPU = torch.device("cpu")


def test_the_fastest_is_what_the_processor_has_instructions_for() -> None:
    flags = torch.cpu.get_capabilities()
    multiplies = any(flags.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    assert fastest(CPU) == ("bf16" if multiplies else "fp32")
    assert computes_in(fastest(CPU), CPU) and computes_in("fp32", CPU)
    assert computes_in("int8", CPU) == product_kernel.int8_available and not computes_in("int8", torch.device("meta"))
