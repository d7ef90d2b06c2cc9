"""Linear layers in bfloat16 by the kernel: equal to torch's within the rounding, and for a row whatever is beside it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu, linear

from service.models import product_kernel
from service.models.kernel_linear import Bfloat16Linear
from service.models.lora import Factors, LoadedFactors, Runs, Site, Target

pytestmark = pytest.mark.skipif(not product_kernel.bfloat16_available, reason="this processor or installation has no such kernel")
CPU = torch.device("cpu")
ACTIVATIONS = {None: lambda y: y, "gelu": gelu, "relu": torch.relu}


def made(rows: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(size, generator=generator) for size in ((rows, inputs), (outputs, inputs), (outputs,)))
    return x.bfloat16(), weight.bfloat16().float() / inputs**0.5, bias


@settings(deadline=None)
@given(
    st.integers(1, 130),
    st.integers(1, 100),
    st.integers(1, 200),
    st.integers(0, 9),
    st.sampled_from(sorted(ACTIVATIONS, key=str)),
)
def test_any_sizes_are_within_the_rounding(rows: int, pairs: int, outputs: int, seed: int, activation: str | None) -> None:
    x, weight, bias = made(rows, 2 * pairs, outputs, seed)
    expected = ACTIVATIONS[activation](linear(x.float(), weight.bfloat16().float(), bias))
    found = Bfloat16Linear(weight, bias)(x, activation)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.01)  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [3, 47, 49, 300])
def test_low_rank_products_come_on_top_and_change_no_other_row(rows: int, activation: str | None) -> None:
    x, weight, bias = made(rows, 40, 72)
    generator = torch.Generator().manual_seed(1)
    pair = Factors(torch.randn(4, 40, generator=generator) / 8, torch.randn(4, 72, generator=generator))
    factors = LoadedFactors.load({"dense": pair}, {"dense": Target(0, 40, 72, torch.bfloat16)}, CPU)
    layer = Bfloat16Linear(weight, bias)
    found = layer.adapted(x, Site(0, 1, 40, 72), Runs.of([(1, rows - 1, factors)]), activation)
    expected = linear(x.float(), weight.bfloat16().float(), bias) + x.float() @ pair.a.T @ pair.b
    torch.testing.assert_close(found[1:-1].float(), ACTIVATIONS[activation](expected[1:-1]), atol=0.05, rtol=0.02)
    for row in (0, rows - 1):
        torch.testing.assert_close(found[row], layer(x[row : row + 1], activation)[0], atol=0, rtol=0)


def test_what_it_cannot_read_is_refused() -> None:
    x, weight, bias = made(2, 64, 64)
    layer = Bfloat16Linear(weight, bias)
    for wrong, line in ((x[:, :60], "contiguous"), (x[:, :60].contiguous(), r"\(2, 60\) to"), (x.float(), r"of torch\.float32")):
        with pytest.raises(ValueError, match=line):
            layer(wrong)
    assert Bfloat16Linear.fits(64) and not Bfloat16Linear.fits(63) and not Bfloat16Linear.fits(product_kernel.MAX_INPUTS + 2)
