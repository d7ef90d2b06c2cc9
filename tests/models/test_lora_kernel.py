"""The kernel refuses what it cannot read, before it touches any memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.models import lora_kernel

pytestmark = pytest.mark.skipif(not lora_kernel.available, reason="no C compiler was there when the package was installed")
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
