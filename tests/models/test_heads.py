"""Heads of many runs at once: equal to a layer for each, on the kernel and on torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from service.models import heads_kernel, kernels
from service.models.heads import Head, Heads
from tests.models.levels import LIBRARIES

needs_kernel = pytest.mark.skipif(not kernels.available, reason="no C compiler was there when the package was installed")


@pytest.fixture(params=[*LIBRARIES, "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(kernels, "available", False)
    else:
        monkeypatch.setattr(kernels, "library", LIBRARIES[request.param])


@pytest.mark.usefixtures("way")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hidden=st.integers(1, 70), runs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 11), st.booleans()), max_size=6))
def test_every_run_gets_its_own_head(hidden: int, runs: list[tuple[int, int, bool]]) -> None:
    generator = torch.Generator().manual_seed(hidden)
    rows = sum(count for count, _, _ in runs)
    states, pooled = torch.randn(rows + 2, hidden, generator=generator), 3 * torch.randn(rows + 2, hidden, generator=generator)
    expected: list[torch.Tensor] = []
    expected_pool, placed, first = pooled.clone(), [], 0
    for count, labels, own in runs:
        dense = (torch.randn(hidden, hidden, generator=generator), torch.randn(hidden, generator=generator)) if own else None
        out = torch.randn(labels, hidden, generator=generator), torch.randn(labels, generator=generator)
        if dense:
            expected_pool[first : first + count] = linear(states[first : first + count], *dense)
        expected += linear(expected_pool[first : first + count].tanh(), *out)
        placed.append((first, first + count, Head(dense, out)))
        first += count
    heads = Heads.of(placed)
    logits = torch.empty(rows + 2, heads.most)
    heads.apply(logits, pooled, states)
    torch.testing.assert_close(pooled[rows:], expected_pool[rows:], atol=0, rtol=0)
    found = heads.each(logits.unbind())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@needs_kernel
def test_the_kernel_refuses_what_it_cannot_read() -> None:
    weight, bias = torch.zeros(3, 8), torch.zeros(3)
    heads = Heads.of([(0, 5, Head(None, (weight, bias)))])
    with pytest.raises(ValueError, match=r"runs to row 5, 3 wide, from \(4, 8\)"):
        heads.apply(torch.zeros(5, 3), torch.zeros(4, 8), torch.zeros(4, 8))
    with pytest.raises(ValueError, match=r"reads float32, not torch\.bfloat16"):
        heads.apply(*(torch.zeros(5, width).bfloat16() for width in (3, 8, 8)))
    with pytest.raises(ValueError, match="contiguous"):
        heads_kernel.apply(torch.zeros(8, 4), torch.zeros(8, 4).T, heads.bounds, torch.zeros(1, 3, dtype=torch.int64).numpy())
    with pytest.raises(ValueError, match=r"does not read runs to row 5, 3 wide, from \(5, 9000\)"):
        heads_kernel.apply(torch.zeros(5, 3), torch.zeros(5, 9000), heads.bounds, heads.out_table, tanh=True)


@needs_kernel
def test_what_is_not_a_number_stays_none() -> None:
    heads = Heads.of([(0, 1, Head(None, (torch.ones(1, 8), torch.zeros(1))))])
    logits, pooled = torch.zeros(1, 1), torch.tensor([[0.0] * 7 + [float("nan")]])
    heads.apply(logits, pooled, torch.zeros(1, 8))
    (logit,) = heads.each(logits.unbind())
    assert bool(logit.isnan())
