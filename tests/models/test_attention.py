"""Attention of packed rows is that of each row by itself, with the kernel and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.models import attention_kernel, kernels
from service.models.attention import Attention
from service.models.packed import Packed
from tests.models.levels import LIBRARIES

CPU = torch.device("cpu")
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def expected(joined: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention of one row, from its joined queries, keys and values, by its definition."""
    query, key, value = joined.double().view(len(joined), 3, heads, -1).permute(1, 2, 0, 3)
    weights = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, -1)
    context: torch.Tensor = (weights @ value).transpose(0, 1).reshape(len(joined), -1)
    return context


@pytest.fixture(params=[*LIBRARIES, "torch"])
def with_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param != "torch":
        monkeypatch.setattr(kernels, "library", LIBRARIES[request.param])
    return bool(request.param != "torch")


@pytest.mark.parametrize("kind", BOUNDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=9),
    heads=st.sampled_from([1, 2, 12]),
    size=st.sampled_from([8, 16, 26, 32, 64, 100]),
    seed=st.integers(0, 1000),
)
def test_rows_are_as_each_by_itself(
    kind: torch.dtype, with_kernel: bool, lengths: list[int], heads: int, size: int, seed: int
) -> None:
    attention = Attention(heads, size, CPU)
    rows = [[5] * length for length in lengths]
    packed = Packed.of(rows, 0, CPU, padded=not with_kernel)
    joined = torch.randn(packed.shape.tokens, 3 * heads * size, generator=torch.Generator().manual_seed(seed)).to(kind)
    alone = [expected(joined[start:stop], heads) for start, stop in zip(packed.starts, packed.starts[1:], strict=False)]
    found = attention(joined, packed, packed.padding())
    assert len(found) == len(joined) and bool(found.isfinite().all())
    torch.testing.assert_close(found[: packed.tokens].double(), torch.cat(alone), atol=BOUNDS[kind], rtol=BOUNDS[kind])
    queries, others = joined[packed.first, : heads * size].contiguous(), joined[:, heads * size :].contiguous()
    first = attention(others, packed, packed.padding(), queries)
    assert len(first) == len(packed.first) and bool(first.isfinite().all())
    torch.testing.assert_close(
        first[: packed.rows].double(), torch.stack([row[0] for row in alone]), atol=BOUNDS[kind], rtol=BOUNDS[kind]
    )


def test_long_rows_and_scores_far_apart() -> None:
    attention, rows = Attention(2, 32, CPU), [[5] * 512, [5] * 3]
    joined = 10 * torch.randn(520, 192, generator=torch.Generator().manual_seed(1))
    packed = Packed.of(rows, 0, CPU, padded=attention.needs_padding(rows))
    found = attention(joined, packed, packed.padding())
    torch.testing.assert_close(found[:512].double(), expected(joined[:512], 2), atol=1e-3, rtol=1e-3)
    assert attention.needs_padding([[5] * 513]) and Attention(1, 129, CPU).needs_padding([[5]])


@pytest.mark.skipif(not kernels.available, reason="no C compiler was there when the package was installed")
@pytest.mark.parametrize(
    ("to", "joined", "starts", "line"),
    [
        (torch.zeros(4, 8), torch.zeros(4, 24), [0, 5], "up to token 5"),
        (torch.zeros(4, 8), torch.zeros(4, 16), [0, 4], "up to token 4"),
        (torch.zeros(4, 8), torch.zeros(4, 24).double(), [0, 4], "of one type"),
        (torch.zeros(4, 400), torch.zeros(4, 1200), [0, 4], "up to 128 numbers"),
        (torch.zeros(600, 8), torch.zeros(600, 24), [0, 600], "up to 512 tokens"),
    ],
)
def test_what_the_kernel_cannot_read(to: torch.Tensor, joined: torch.Tensor, starts: list[int], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        attention_kernel.attention(to, joined, 2, np.array(starts, np.int64))
