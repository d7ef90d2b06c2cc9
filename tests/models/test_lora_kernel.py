"""The kernel refuses what it cannot read, before it touches any memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.models import kernels, lora_kernel

pytestmark = pytest.mark.skipif(not kernels.available, reason="no C compiler was there when the package was installed")
TABLE = np.zeros((1, 1, 3), np.int64)


@pytest.mark.parametrize(
    ("x", "y", "bounds", "line"),
    [
        (torch.zeros(4, 8), torch.zeros(4, 8), [[0, 5]], "runs end at row 5 of 4"),
        (torch.zeros(4, 8), torch.zeros(4, 8, dtype=torch.bfloat16), [[0, 4]], "of one type"),
        (torch.zeros(8, 4).T, torch.zeros(4, 8), [[0, 4]], "contiguous"),
        (torch.zeros(4, 8).double(), torch.zeros(4, 8).double(), [[0, 4]], "not torch.float64"),
        (torch.zeros(1, 20_000), torch.zeros(1, 8), [[0, 1]], "up to 16384 inputs"),
    ],
)
def test_what_it_cannot_read(x: torch.Tensor, y: torch.Tensor, bounds: list[list[int]], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        lora_kernel.add(y, x, 0, 1, np.array(bounds, np.int64), TABLE)


@pytest.mark.parametrize(("kind", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_activation_goes_over_rows_in_runs_and_between_them(kind: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 48, generator=generator), torch.randn(4, 80, generator=generator)
    x, y = torch.randn(150, 48, generator=generator).to(kind), 4 * torch.randn(150, 80, generator=generator).to(kind)
    bounds = np.array([[3, 9], [9, 70], [101, 102]], np.int64)
    table = np.array([[[a.data_ptr(), b.data_ptr(), 4]], [[0, 0, 0]], [[a.data_ptr(), b.data_ptr(), 4]]], np.int64)
    wide = y.float().clone()
    for start, stop in ((3, 9), (101, 102)):
        wide[start:stop] += x[start:stop].float() @ a.T @ b
    lora_kernel.add(y, x, 0, 1, bounds, table, gelu=True)
    torch.testing.assert_close(y.float(), torch.nn.functional.gelu(wide), atol=bound, rtol=bound)
