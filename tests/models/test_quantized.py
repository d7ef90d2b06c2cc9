"""Linear layers in int8 against what their rounding allows, for any sizes, alone and with adapters; an encoder of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu, linear

from service.models import product_kernel
from service.models.base_weights import load_base
from service.models.calibration import SENTENCES, text_encoder
from service.models.lora import Factors, LoadedFactors, Runs, Site, Target
from service.models.quantized import QuantizedLinear
from service.models.tokenizer import TextTokenizer

pytestmark = pytest.mark.skipif(not product_kernel.int8_available, reason="this processor or installation has no int8 kernel")
CPU = torch.device("cpu")


def made(rows: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, generator=generator) for size in ((rows, inputs), (outputs, inputs), (outputs,)))  # type: ignore[return-value]  # three


def bound(x: Tensor, weight: Tensor) -> float:
    """The largest error that rounding can make: half a step of x at each weight, half a step of each weight at x."""
    x_step = (x.amax(1).clamp_min(0) - x.amin(1).clamp_max(0)).max() / 255
    weight_step = weight.abs().amax() / 127
    return float(
        0.5 * (x_step * weight.abs().sum(1).max() + weight_step * x.abs().sum(1).max() + x_step * weight_step * x.shape[1])
    )


@settings(deadline=None)
@given(st.integers(1, 130), st.integers(1, 200), st.integers(1, 200), st.integers(0, 9), st.sampled_from([None, "gelu", "relu"]))
def test_any_sizes_are_within_the_rounding(rows: int, inputs: int, outputs: int, seed: int, activation: str | None) -> None:
    x, weight, bias = made(rows, inputs, outputs, seed)
    exact = linear(x, weight, bias)
    exact = exact if activation is None else {"gelu": gelu, "relu": torch.relu}[activation](exact)
    found = QuantizedLinear(weight, bias)(x, activation)
    assert found.shape == exact.shape
    assert float((found - exact).abs().max()) <= 1.2 * bound(x, weight) + 1e-4  # GELU is a little steeper than one


def test_a_rows_result_does_not_depend_on_the_rows_beside_it() -> None:
    x, weight, bias = made(101, 96, 130)
    layer = QuantizedLinear(weight, bias)
    together = layer(x * torch.linspace(0.1, 10, 101)[:, None])
    for row in (0, 5, 47, 48, 100):
        torch.testing.assert_close(
            layer(x[row : row + 1] * float(torch.linspace(0.1, 10, 101)[row]))[0], together[row], atol=0, rtol=0
        )


def test_rows_of_zeros_or_of_one_sign_are_exact_enough() -> None:
    _, weight, bias = made(1, 64, 64)
    layer = QuantizedLinear(weight, bias)
    assert torch.equal(layer(torch.zeros(3, 64)), bias.expand(3, -1))
    for x in (torch.full((2, 64), 5.0), torch.full((2, 64), -5.0)):
        torch.testing.assert_close(layer(x), linear(x, weight, bias), atol=1.2 * bound(x, weight), rtol=0)


def test_an_input_that_dwarfs_the_others_costs_them_little_once_it_is_known() -> None:
    x, weight, bias = made(64, 128, 64)
    x[:, 7] *= 200
    exact = linear(x, weight, bias)
    plain, smoothed = (
        float((QuantizedLinear(weight, bias, largest)(x) - exact).abs().mean()) for largest in (None, x.abs().amax(0))
    )
    assert smoothed < plain / 2


@pytest.mark.parametrize("rows", [3, 47, 48, 49, 300])
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15)])
def test_low_rank_products_come_on_top(rows: int, activation: str | None, kind: torch.dtype, tolerance: float) -> None:
    x, weight, bias = made(rows, 40, 3 * 72)
    x = (x / 8).to(kind)
    generator = torch.Generator().manual_seed(1)
    pair = Factors(torch.randn(4, 40, generator=generator), torch.randn(4, 72, generator=generator))
    targets = {name: Target(number, 40, 72, kind) for number, name in enumerate(("query", "key", "value"))}
    factors = LoadedFactors.load({"key": pair}, targets, CPU)
    runs = Runs.of([(1, rows - 1, factors)])
    layer = QuantizedLinear(weight, bias)
    expected = layer(x).float()
    expected[1 : rows - 1, 72:144] += x[1 : rows - 1].float() @ pair.a.T @ pair.b
    expected = expected if activation is None else {"gelu": gelu, "relu": torch.relu}[activation](expected)
    found = layer.adapted(x, Site(0, 3, 40, 72), runs, activation)
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


def test_what_it_cannot_read_is_refused() -> None:
    x, weight, bias = made(2, 64, 64)
    layer = QuantizedLinear(weight, bias)
    for wrong, line in ((x[:, :60], "contiguous"), (x[:, :60].contiguous(), r"\(2, 60\) to"), (x.double(), "not torch.float64")):
        with pytest.raises(ValueError, match=line):
            layer(wrong)
    assert QuantizedLinear.fits(product_kernel.MAX_INPUTS) and not QuantizedLinear.fits(product_kernel.MAX_INPUTS + 1)


def test_an_encoder_in_int8_keeps_its_states(tiny_base: Path) -> None:
    base, tokenizer = load_base(str(tiny_base)), TextTokenizer(str(tiny_base))
    exact, rounded = (text_encoder(base, tokenizer, CPU, dtype) for dtype in ("fp32", "int8"))
    rows = tokenizer(SENTENCES)
    expected, found = (encoder.states(encoder.pack(rows)) for encoder in (exact, rounded))
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0)  # states are normalised; weights and inputs keep 8 bits each
    assert float((found - expected).abs().mean()) < 0.05
