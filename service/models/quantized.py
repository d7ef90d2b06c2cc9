"""A frozen linear layer in int8: 8 bits for every weight, and for every number of a row that goes through it.

Each output of the weights and each row has a scale of its own, the row's found as it comes, so an answer does not depend
on who shares the batch. Inputs that are much larger than the others would take the row's 8 bits for themselves; where they
are known, half of the difference is moved over into the weights beforehand (SmoothQuant, arXiv 2211.10438).
"""

from __future__ import annotations

import torch
from torch import Tensor

from service.models import product_kernel
from service.models.kernel_linear import KernelLinear

LARGEST = 127
LEAST = 1e-5  # of an input or weight, as far as smoothing is concerned
MOVED = 0.5  # share of the difference between inputs that goes to the weights


class QuantizedLinear(KernelLinear):
    """A layer whose weights are int8; its rows are float32 or bfloat16, and rounded on their way in.

    ``largest`` (in,) has the largest absolute value that each input is known to take; without it none is smoothed.
    """

    def __init__(self, weight: Tensor, bias: Tensor, largest: Tensor | None = None) -> None:
        by = torch.ones(weight.shape[1])
        if largest is not None:
            by = largest.clamp_min(LEAST) ** MOVED / weight.abs().amax(0).clamp_min(LEAST) ** (1 - MOVED)
        smoothed = weight * by
        scales = (smoothed.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        values = (smoothed / scales[:, None]).round().to(torch.int8)
        super().__init__(product_kernel.in_int8(values, scales, bias, 1 / by))

    @staticmethod
    def fits(inputs: int) -> bool:
        """Whether there is a kernel for so many inputs."""
        return inputs <= product_kernel.MAX_INPUTS
