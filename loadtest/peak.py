"""The machine's best rate of matrix products, measured: what a forward's arithmetic is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from loadtest.timing import seconds
from service.models.kernel_linear import Bfloat16Linear, Float32Linear
from service.models.linear import COMPUTED_IN, Dtype, Linear
from service.models.quantized import QuantizedLinear

SIZES = (512, 768, 1024, 2048)  # of square matrices: below, starting costs show; above, nothing is gained
FEWEST = 3


def flops_per_second(dtype: Dtype, sizes: Sequence[int] = SIZES, spend: float = 0.1) -> float:
    """Operations a second, two for each multiply-add, of the fastest square product.

    Torch's own product, oneDNN's and the encoder's are tried, each for ``spend`` seconds at each size.
    """
    return max(2.0 * size**3 / _fastest(call, spend) for size in sizes for call in _products(dtype, size))


def _products(dtype: Dtype, size: int) -> Iterator[Callable[[], object]]:
    kind = COMPUTED_IN[dtype]
    a, b = torch.rand(size, size).to(kind), torch.rand(size, size)
    if dtype == "int8":
        quantized, left, right = QuantizedLinear(b, torch.zeros(size)), *((100 * one).to(torch.int8) for one in (a, b))
        yield lambda: quantized(a)
        yield lambda: torch._int_mm(left, right)
        return
    layer = Linear(b, torch.zeros(size), dtype, a.device)
    yield lambda: layer(a)
    own = Bfloat16Linear if dtype == "bf16" else Float32Linear
    if own.fits(size):
        kernel = own(b, torch.zeros(size))
        yield lambda: kernel(a)
    b = b.to(kind)
    yield lambda: torch.mm(a, b)


@torch.inference_mode()
def _fastest(call: Callable[[], object], spend: float) -> float:
    call()
    times: list[float] = []
    while sum(times) < spend or len(times) < FEWEST:
        times.append(seconds(call))
    return min(times)
