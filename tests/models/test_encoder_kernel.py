"""The whole encoder in one call: what its steps give one by one, whichever way a batch is shared out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.models import encoder_kernel, kernels, product_kernel
from service.models.base_weights import load_base
from service.models.calibration import text_encoder
from service.models.heads import Head, Heads
from service.models.linear import DTYPES, Dtype, computes_in
from service.models.lora import NO_RUNS, Factors, LoadedFactors, Runs
from service.models.lora_kernel import MAX_RANK
from service.models.text_encoder import TextEncoder
from service.models.tokenizer import TextTokenizer
from tests.models.levels import LIBRARIES, having

pytestmark = pytest.mark.skipif(not encoder_kernel.available, reason="this processor or installation has no such kernel")
in_any_number_of_threads = pytest.mark.usefixtures("_threads")
CPU = torch.device("cpu")
PRODUCTS: dict[Dtype, str] = {"fp32": "float32_linear", "bf16": "bfloat16_linear", "int8": "int8_linear"}
FROM_STEPS: dict[Dtype, float] = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.25}  # which round once more in between
FROM_EXACT: dict[Dtype, float] = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.4}
CASES = [(dtype, level) for dtype in DTYPES if computes_in(dtype, CPU) for level in having(PRODUCTS[dtype])]


@pytest.fixture(scope="module", params=CASES, ids=" on ".join)
def encoder(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[TextEncoder]:
    dtype, level = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", LIBRARIES[level])
        yield text_encoder(load_base(str(tiny_base)), TextTokenizer(str(tiny_base)), CPU, dtype)


@pytest.fixture(scope="module")
def exact(tiny_base: Path) -> TextEncoder:
    """In float32, by torch's own product."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product_kernel, "float32_available", False)
        return TextEncoder(load_base(str(tiny_base)), CPU)


@pytest.fixture(params=[1, 2, 3])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def rows_of(lengths: list[int]) -> list[list[int]]:
    return [[5 + 7 * place + number for number in range(length)] for place, length in enumerate(lengths)]


def worn(encoder: TextEncoder, seed: int) -> LoadedFactors:
    generator = torch.Generator().manual_seed(seed)
    factors = {
        name: Factors(
            torch.randn(4, target.inputs, generator=generator), torch.randn(4, target.outputs, generator=generator), 0.01
        )
        for name, target in encoder.targets.items()
        if target.module % 2 == seed % 2
    }
    return LoadedFactors.load(factors, encoder.targets, CPU)


def head(encoder: TextEncoder, seed: int, labels: int, *, dense: bool) -> Head:
    generator = torch.Generator().manual_seed(seed)
    sizes = [encoder.hidden] * dense + [labels]
    layers = [
        (torch.randn(size, encoder.hidden, generator=generator) / 8, torch.randn(size, generator=generator)) for size in sizes
    ]
    return Head(layers[0] if dense else None, layers[-1])


@in_any_number_of_threads
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=24), cut=st.integers(0, 24), seed=st.integers(0, 1))
def test_a_row_has_the_same_answer_alone_and_in_any_batch(encoder: TextEncoder, lengths: list[int], cut: int, seed: int) -> None:
    rows, cut, factors = rows_of(lengths), min(cut, len(lengths)), worn(encoder, seed)
    heads = [head(encoder, number, 2 + number, dense=number == 1) for number in range(3)]
    runs = Runs.of([(0, cut, factors)] if cut else [])
    states, logits = encoder.answer(encoder.pack(rows), runs, Heads.of(_thirds(heads, len(rows))))
    torch.testing.assert_close(states, encoder.forward(encoder.pack(rows), runs), atol=0, rtol=0)
    for place, row in enumerate(rows):
        alone = encoder.forward(encoder.pack([row]), Runs.of([(0, 1, factors)]) if place < cut else NO_RUNS)
        torch.testing.assert_close(states[place : place + 1], alone, atol=0, rtol=0)
    for start, stop, own in _thirds(heads, len(rows)):
        for place in range(start, stop):
            worn_alone = Runs.of([(0, 1, factors)]) if place < cut else NO_RUNS
            state, alone = encoder.answer(encoder.pack(rows[place : place + 1]), worn_alone, Heads.of([(0, 1, own)]))
            torch.testing.assert_close(states[place : place + 1], state, atol=0, rtol=0)
            torch.testing.assert_close(logits[place : place + 1, : alone.shape[1]], alone, atol=0, rtol=0)


def _thirds(heads: list[Head], rows: int) -> list[tuple[int, int, Head]]:
    """Heads for a third of so many rows each, but the last row, which has none where there is another."""
    bounds = [max(rows - 1, 1) * third // 3 for third in range(4)]
    return [(start, stop, own) for start, stop, own in zip(bounds, bounds[1:], heads, strict=False) if start < stop]


@in_any_number_of_threads
@pytest.mark.parametrize("lengths", [[1], [40], [30] * 20, [3] * 200, [60, 4, 4], [17, 33, 5, 60, 48, 2, 29, 31, 8]])
def test_first_states_are_those_of_the_steps_one_by_one(encoder: TextEncoder, lengths: list[int]) -> None:
    packed = encoder.pack(rows_of(lengths))
    by_steps, found = encoder.first_states(packed, NO_RUNS)[: packed.rows], encoder.forward(packed, NO_RUNS)
    bound = FROM_STEPS[encoder.dtype]
    torch.testing.assert_close(found, by_steps, atol=bound, rtol=0)
    assert float((found - by_steps).abs().mean()) < bound / 6


@in_any_number_of_threads
@pytest.mark.parametrize("lengths", [[1], [40], [30] * 20, [3] * 200, [17, 33, 5, 60, 48, 2, 29, 31, 8]])
def test_every_tokens_states_are_those_of_float32_and_first_tokens_the_same(
    encoder: TextEncoder, exact: TextEncoder, lengths: list[int]
) -> None:
    packed = encoder.pack(rows_of(lengths))
    bound = FROM_EXACT[encoder.dtype]
    for found, expected in zip(encoder.halfway_and_last(packed), exact.halfway_and_last(packed), strict=True):
        torch.testing.assert_close(found, expected, atol=bound, rtol=0)
        assert float((found - expected).abs().mean()) < bound / 6
    first = encoder.states(packed)[torch.from_numpy(packed.starts[:-1])]
    torch.testing.assert_close(encoder.forward(packed, NO_RUNS), first, atol=0, rtol=0)


@pytest.mark.parametrize("layers", [1, 2])
def test_halfway_is_after_half_of_the_layers_rounded_down(tiny_base: Path, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(str(tiny_base))
    base.config.num_hidden_layers = layers
    whole = TextEncoder(base, CPU)
    monkeypatch.setattr(encoder_kernel, "available", False)
    by_steps = TextEncoder(base, CPU)
    packed = whole.pack(rows_of([7, 3]))
    for found, expected in zip(whole.halfway_and_last(packed), by_steps.halfway_and_last(packed), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@in_any_number_of_threads
def test_every_processor_gets_a_share_of_a_large_batch(encoder: TextEncoder) -> None:
    lengths = list(np.random.default_rng(0).integers(1, 60, 90))
    rows, factors = rows_of(lengths), [worn(encoder, seed) for seed in range(2)]
    runs = [(first, first + 3, factors[first // 3 % 2]) for first in range(0, 90, 9)]
    heads = Heads.of([(first, first + 9, head(encoder, first, 3, dense=first % 2 == 1)) for first in range(0, 90, 9)])
    together = encoder.answer(encoder.pack(rows), Runs.of(runs), heads)
    torch.set_num_threads(1)
    torch.testing.assert_close(together, encoder.answer(encoder.pack(rows), Runs.of(runs), heads), atol=0, rtol=0)


def test_tokens_and_ranks_beyond_what_there_is_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="beyond what the kernel reads"):
        encoder.forward(encoder.pack([[5, 10**6]]), NO_RUNS)
    target = next(iter(encoder.targets))
    huge = Factors(torch.zeros(MAX_RANK + 4, encoder.hidden), torch.zeros(MAX_RANK + 4, encoder.hidden))
    runs = Runs.of([(0, 1, LoadedFactors.load({target: huge}, encoder.targets, CPU))])
    with pytest.raises(ValueError, match="beyond what the kernel reads"):
        encoder.forward(encoder.pack([[5, 6]]), runs)
    with pytest.raises(ValueError, match="beyond what the kernel reads"):
        encoder.answer(encoder.pack([[5, 6]]), NO_RUNS, Heads.of([(0, 2, head(encoder, 0, 3, dense=False))]))
