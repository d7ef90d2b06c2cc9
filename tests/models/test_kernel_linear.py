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
SITE = Site(0, 1, 40, 72)
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
    layer = layer_type(weight, bias)
    factors = LoadedFactors.load({"dense": pair}, {"dense": Target(0, 40, 72, kind, SITE if layer.tiled else None)}, CPU)
    found = layer.adapted(x, SITE, Runs.of([(1, rows - 1, factors)]), activation)
    expected = linear(x.float(), weight.to(kind).float(), bias) + x.float() @ pair.a.T @ pair.b
    atol, rtol = (2.5 * bound for bound in BOUNDS[kind])
    torch.testing.assert_close(found[1:-1].float(), ACTIVATIONS[activation](expected[1:-1]), atol=atol, rtol=rtol)
    for row in (0, rows - 1):
        torch.testing.assert_close(found[row], layer(x[row : row + 1], activation)[0], atol=0, rtol=0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4)), min_size=1, max_size=12).filter(
        lambda runs: sum(n for n, _ in runs) < 300
    ),
    st.integers(1, 60),
    st.integers(1, 90),
    st.integers(1, 3),
    st.lists(st.sampled_from([1, 4, 8, 16, 20, 32, 64, 100]), min_size=3, max_size=3),
    st.booleans(),
)
def test_joined_modules_take_products_of_any_ranks_for_runs_of_any_lengths(
    layer_type: Layer, lengths: list[tuple[int, int]], pairs: int, outputs: int, parts: int, ranks: list[int], gelu_after: bool
) -> None:
    """Each run has a length and the number of an adapter, of which 3 and 4 are none."""
    kind, inputs, count = KINDS[layer_type], 2 * pairs, sum(length for length, _ in lengths)
    x, weight, bias = made(kind, count, inputs, parts * outputs)
    layer, generator = layer_type(weight, bias), torch.Generator().manual_seed(2)
    site = Site(0, parts, inputs, outputs)
    targets = {str(part): Target(part, inputs, outputs, kind, site if layer.tiled else None) for part in range(parts)}

    def adapter(number: int, rank: int) -> dict[str, Factors]:
        """It leaves one of the modules alone, where there are several."""
        a, b = (torch.randn(rank, width, generator=generator) for width in (inputs, outputs))
        return {name: Factors((a / inputs**0.5).half(), b / rank**0.5) for name in targets if parts == 1 or int(name) != number}

    worn = [adapter(number, rank) for number, rank in enumerate(ranks)]
    loaded = [LoadedFactors.load(one, targets, CPU) for one in worn]
    expected, runs, start = linear(x.float(), weight.to(kind).float(), bias), [], 0
    for length, number in lengths:
        stop = start + length
        if number < len(worn):
            runs.append((start, stop, loaded[number]))
            for name, pair in worn[number].items():
                columns = slice(int(name) * outputs, (int(name) + 1) * outputs)
                expected[start:stop, columns] += x[start:stop].float() @ pair.a.T.float() @ pair.b
        start = stop
    activation = "gelu" if gelu_after else None
    found = layer.adapted(x, site, Runs.of(runs), activation)
    atol, rtol = (2.5 * bound for bound in BOUNDS[kind])
    torch.testing.assert_close(found.float(), ACTIVATIONS[activation](expected), atol=atol, rtol=rtol)


@pytest.mark.parametrize("scaling", [2.0, 1e300, float("nan")])
def test_factors_beyond_every_number_spoil_no_other_row(layer_type: Layer, scaling: float) -> None:
    kind = KINDS[layer_type]
    x, weight, bias = made(kind, 20, 40, 72)
    layer = layer_type(weight, bias)
    pair = Factors(torch.full((4, 40), 3e38), torch.full((4, 72), 3e38), scaling)
    factors = LoadedFactors.load({"dense": pair}, {"dense": Target(0, 40, 72, kind, SITE if layer.tiled else None)}, CPU)
    found = layer.adapted(x, SITE, Runs.of([(5, 9, factors)]))
    assert torch.equal(found[:5], layer(x)[:5]) and torch.equal(found[9:], layer(x)[9:])
    assert not found[5:9].isfinite().all()


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


def test_ranks_beyond_its_memory_are_refused(layer_type: Layer) -> None:
    kind = KINDS[layer_type]
    x, weight, bias = made(kind, 20, 40, 72)
    layer = layer_type(weight, bias)
    pair = Factors(torch.ones(2048, 40), torch.ones(2048, 72))
    factors = LoadedFactors.load({"dense": pair}, {"dense": Target(0, 40, 72, kind, SITE if layer.tiled else None)}, CPU)
    with pytest.raises(ValueError, match="ranks up to 1024"):
        layer.adapted(x, SITE, Runs.of([(5, 9, factors)]))


def test_no_rows_give_none(layer_type: Layer) -> None:
    x, weight, bias = made(KINDS[layer_type], 0, 64, 130)
    assert layer_type(weight, bias)(x).shape == (0, 130)
