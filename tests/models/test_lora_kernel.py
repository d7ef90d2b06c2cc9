"""The kernel against torch's products in float32, for any sizes; it refuses what it cannot read before it touches memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.models import kernels, lora_kernel
from service.models.kernels import Array
from service.models.lora import Factors, LoadedFactors, Runs, Site, Target, add_products
from tests.models.levels import LIBRARIES

pytestmark = pytest.mark.skipif(not kernels.available, reason="no C compiler was there when the package was installed")
TABLE, CPU = np.zeros((1, 1, 3), np.int64), torch.device("cpu")


@pytest.mark.parametrize(
    ("x", "y", "bounds", "line"),
    [
        (torch.zeros(4, 8), torch.zeros(4, 8), [[0, 5]], "runs end at row 5 of 4"),
        (torch.zeros(4, 8), torch.zeros(4, 8, dtype=torch.bfloat16), [[0, 4]], "of one type"),
        (torch.zeros(8, 4).T, torch.zeros(4, 8), [[0, 4]], "contiguous"),
        (torch.zeros(4, 8).double(), torch.zeros(4, 8).double(), [[0, 4]], "not torch.float64"),
    ],
)
def test_what_it_cannot_read(x: torch.Tensor, y: torch.Tensor, bounds: list[list[int]], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        lora_kernel.add(y, x, 0, 1, np.array(bounds, np.int64), TABLE)


def test_more_than_it_has_room_for() -> None:
    for table, parts in ((np.array([[[0, 0, 1025]]], np.int64), 1), (np.zeros((1, 4, 3), np.int64), 4)):
        with pytest.raises(ValueError, match="up to 3 modules of a site and ranks up to 1024"):
            lora_kernel.add(torch.zeros(1, 8), torch.zeros(1, 8), 0, parts, np.array([[0, 1]], np.int64), table)


class Adapter(NamedTuple):
    """Factors as they are loaded, and as they should be, scaled and in float32."""

    loaded: LoadedFactors
    a: torch.Tensor
    b: torch.Tensor


def adapters(inputs: int, outputs: int, ranks: Sequence[int], kind: torch.dtype) -> list[Adapter]:
    generator = torch.Generator().manual_seed(0)
    target = Target(0, inputs, outputs, kind)
    sides = [[torch.randn(r, width, generator=generator) / 8 for width in (inputs, outputs)] for r in ranks]
    return [
        Adapter(
            LoadedFactors.load({"layer": Factors(a, b, 1.4)}, {"layer": target}, CPU),
            a.to(kind).float(), (1.4 * b).to(kind).float(),
        ) for a, b in sides
    ]  # fmt: skip


@pytest.fixture(params=LIBRARIES)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", LIBRARIES[request.param])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 100), st.integers(1, 100), st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.lists(st.integers(0, 150), min_size=8, max_size=8), st.sampled_from([(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]),
)  # fmt: skip
@pytest.mark.usefixtures("level")
def test_any_sizes_and_runs(
    inputs: int, outputs: int, ranks: list[int], cuts: list[int], kind_bound: tuple[torch.dtype, float]
) -> None:
    kind, bound = kind_bound
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(150, width, generator=generator).to(kind) for width in (inputs, outputs))
    ends, made = sorted(cuts), adapters(inputs, outputs, ranks, kind)
    worn = [(ends[2 * i], ends[2 * i + 1], one) for i, one in enumerate(made) if ends[2 * i] < ends[2 * i + 1]]
    runs = Runs.of([(start, stop, one.loaded) for start, stop, one in worn])
    expected = y.float().clone()
    for start, stop, one in worn:
        expected[start:stop] += x[start:stop].float() @ one.a.T @ one.b
    found = add_products(y.clone(), x, Site(0, 1, inputs, outputs), runs)
    torch.testing.assert_close(found.float(), expected, atol=bound, rtol=bound)
    outside = torch.ones(150, dtype=torch.bool)
    for start, stop in runs.bounds.tolist():
        outside[start:stop] = False
    assert torch.equal(found[outside], y[outside])


@pytest.mark.parametrize(("kind", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.usefixtures("level")
def test_the_activation_goes_over_rows_in_runs_and_between_them(kind: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(150, 48, generator=generator).to(kind), 4 * torch.randn(150, 80, generator=generator).to(kind)
    ((factors, a, b),) = adapters(48, 80, [4], kind)
    none: Array = np.zeros((1, 1, 3), np.int64)
    bounds, table = np.array([[3, 9], [9, 70], [101, 102]], np.int64), np.stack([factors.table, none[0], factors.table])
    wide = y.float().clone()
    for start, stop in ((3, 9), (101, 102)):
        wide[start:stop] += x[start:stop].float() @ a.T @ b
    lora_kernel.add(y, x, 0, 1, bounds, table, gelu=True)
    torch.testing.assert_close(y.float(), torch.nn.functional.gelu(wide), atol=bound, rtol=bound)
