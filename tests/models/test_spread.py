"""Products of runs, cut in either way, are those of each run by itself; nothing spreads from one run to another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.models.spread import BLOCK, blocks, long_runs, most_blocks, segments

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.05}


def bounds_of(lengths: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Every other one of these lengths is a run, the others gaps."""
    ends = np.cumsum([0, *lengths])
    return np.stack([ends[1:-1:2], ends[2::2]], 1)


@pytest.mark.parametrize("way", ["segments", "blocks", "more blocks than needed"])
@pytest.mark.parametrize("kind", BOUNDS)
@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 70)), min_size=1, max_size=9),
    tail=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_products_are_those_of_each_run(kind: torch.dtype, way: str, pairs: list[tuple[int, int]], tail: int, seed: int) -> None:
    torch.manual_seed(seed)
    bounds = bounds_of([length for pair in pairs for length in pair])
    lines = int(bounds[-1, 1]) + tail
    x, y = torch.randn(lines, 24).to(kind), torch.randn(lines, 40).to(kind)
    a, b = torch.randn(1 + len(bounds), 8, 24).to(kind) / 4, torch.randn(1 + len(bounds), 8, 40).to(kind) / 4
    a[0] = b[0] = 0
    expected = y.double()
    for run, (start, stop) in enumerate(bounds.tolist(), 1):
        expected[start:stop] += x[start:stop].double() @ a[run].double().T @ b[run].double()
    pieces = most_blocks(lines, len(bounds)) if way.startswith("more") else None
    cut, told = segments(bounds, lines) if way == "segments" else blocks(bounds, lines, pieces)
    inputs = torch.from_numpy(told)
    assert len(inputs) == cut.size
    worn = cut.run(inputs)
    cut.add(y, cut.lay(x, inputs), a[worn], b[worn], inputs)
    torch.testing.assert_close(y.double(), expected, atol=BOUNDS[kind], rtol=BOUNDS[kind])


@pytest.mark.parametrize("way", [segments, blocks])
def test_a_bad_run_spoils_no_other_line(way: type) -> None:
    bounds = np.array([[0, 3], [3, 3 + 2 * BLOCK], [40, 41]])
    cut, told = way(bounds, 50)
    inputs, x, y = torch.from_numpy(told), torch.ones(50, 8), torch.zeros(50, 8)
    a = b = torch.ones(4, 8, 8)
    a[0], x[0] = 0, torch.nan
    run = cut.run(inputs)
    cut.add(y, cut.lay(x, inputs), a[run], b[run], inputs)
    assert bool(y[0].isnan().all()) and bool(y[1:].isfinite().all()) and not y[41:].any()


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40))
def test_no_more_blocks_come_of_it_than_are_foreseen(lengths: list[int]) -> None:
    assert sum(-(-length // BLOCK) for length in lengths) <= most_blocks(sum(lengths), len(lengths))


def test_what_counts_as_long_depends_on_the_type() -> None:
    short, long = np.array([[0, 100], [100, 200]]), np.array([[0, 300]])
    assert long_runs(short, torch.float32) and long_runs(long, torch.bfloat16) and not long_runs(short, torch.bfloat16)
