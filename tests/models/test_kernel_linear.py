"""Linear layers by the kernels: equal to torch's within the rounding, and for a row whatever is beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu, linear

from service.models import kernels, product_kernel
from service.models.kernel_linear import Bfloat16Linear, Float32Linear
from service.models.lora import Factors, LoadedFactors, Runs, Site, Target
from tests.models.levels import LIBRARIES, having

CPU = torch.device("cpu")
Layer = type[Bfloat16Linear] | type[Float32Linear]
KINDS: dict[Layer, torch.dtype] = {Bfloat16Linear: torch.bfloat16, Float32Linear: torch.float32}
BOUNDS = {torch.bfloat16: (0.02, 0.01), torch.float32: (1e-5, 1e-5)}  # absolute and relative; bfloat16 keeps 8 bits
CASES: list[tuple[Layer, str]] = [
    *((Bfloat16Linear, level) for level in having("bfloat16_linear") if product_kernel.bfloat16_available),
    *((Float32Linear, level) for level in having("float32_linear")),
]
ACTIVATIONS = {None: lambda y: y, "gelu": gelu, "relu": torch.relu}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__} on {case[1]}")
def layer_type(request: pytest.FixtureRequest) -> Iterator[Layer]:
    layer, level = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", LIBRARIES[level])
        yield layer


def made(kind: torch.dtype, rows: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(size, generator=generator) for size in ((rows, inputs), (outputs, inputs), (outputs,)))
    return x.to(kind), weight / inputs**0.5, bias


@settings(deadline=None)
@given(
    st.integers(1, 130),
    st.integers(1, 100),
    st.integers(1, 200),
    st.integers(0, 9),
    st.sampled_from(sorted(ACTIVATIONS, key=str)),
)
def test_any_sizes_are_within_the_rounding(
    layer_type: Layer, rows: int, pairs: int, outputs: int, seed: int, activation: str | None
) -> None:
    kind = KINDS[layer_type]
    inputs = 2 * pairs - (kind == torch.float32)  # which need not be even
    x, weight, bias = made(kind, rows, inputs, outputs, seed)
    expected = ACTIVATIONS[activation](linear(x.float(), weight.to(kind).float(), bias))
    found = layer_type(weight, bias)(x, activation)
    assert found.dtype == kind
    atol, rtol = BOUNDS[kind]
    torch.testing.assert_close(found.float(), expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [3, 47, 49, 300])
def test_low_rank_products_come_on_top_and_change_no_other_row(layer_type: Layer, rows: int, activation: str | None) -> None:
    kind = KINDS[layer_type]
    x, weight, bias = made(kind, rows, 40, 72)
    generator = torch.Generator().manual_seed(1)
    pair = Factors(torch.randn(4, 40, generator=generator) / 8, torch.randn(4, 72, generator=generator))
    factors = LoadedFactors.load({"dense": pair}, {"dense": Target(0, 40, 72, kind)}, CPU)
    layer = layer_type(weight, bias)
    found = layer.adapted(x, Site(0, 1, 40, 72), Runs.of([(1, rows - 1, factors)]), activation)
    expected = linear(x.float(), weight.to(kind).float(), bias) + x.float() @ pair.a.T @ pair.b
    atol, rtol = (2.5 * bound for bound in BOUNDS[kind])
    torch.testing.assert_close(found[1:-1].float(), ACTIVATIONS[activation](expected[1:-1]), atol=atol, rtol=rtol)
    for row in (0, rows - 1):
        torch.testing.assert_close(found[row], layer(x[row : row + 1], activation)[0], atol=0, rtol=0)


def test_what_it_cannot_read_is_refused(layer_type: Layer) -> None:
    kind, other = KINDS[layer_type], torch.float32 if layer_type is Bfloat16Linear else torch.bfloat16
    x, weight, bias = made(kind, 2, 64, 64)
    layer = layer_type(weight, bias)
    for wrong, line in ((x[:, :60], "contiguous"), (x[:, :60].contiguous(), r"\(2, 60\) to"), (x.to(other), f"of {other}")):
        with pytest.raises(ValueError, match=line):
            layer(wrong)
    assert layer_type.fits(64) and not layer_type.fits(product_kernel.MAX_INPUTS + 2)
    assert layer_type.fits(63) == (kind == torch.float32)


@pytest.mark.parametrize("level", having("float16_linear"))
@pytest.mark.parametrize("rows", [1, 5, 60])
def test_weights_in_float16_compute_what_they_do_in_float32(rows: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", LIBRARIES[level])
    x, weight, bias = made(torch.float32, rows, 37, 130)
    weight[0, 0], weight[1, 1], weight[2, 2] = 6e-8, -65504, 0  # the least, the largest, none
    halves = weight.half()
    assert torch.equal(Float32Linear(halves, bias)(x), Float32Linear(halves.float(), bias)(x))
    for kept in (halves, weight):
        taken = sum(tensor.nbytes for tensor in product_kernel.in_float32(kept, bias).tensors)
        assert product_kernel.float32_bytes(kept) == taken


def test_no_rows_give_none(layer_type: Layer) -> None:
    x, weight, bias = made(KINDS[layer_type], 0, 64, 130)
    assert layer_type(weight, bias)(x).shape == (0, 130)
