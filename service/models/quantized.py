"""A frozen linear layer in int8: 8 bits for every weight, and for every number of a row that goes through it.

Each output of the weights and each row has a scale of its own, the row's found as it comes, so an answer does not depend
on who shares the batch. Inputs that are much larger than the others would take the row's 8 bits for themselves; where they
are known, half of the difference is moved over into the weights beforehand (SmoothQuant, arXiv 2211.10438).
"""

from __future__ import annotations

import torch
from torch import Tensor

from service.models import int8_kernel, lora_kernel
from service.models.activations import activated
from service.models.lora import Runs, Site

LARGEST = 127
LEAST = 1e-5  # of an input or weight, as far as smoothing is concerned
MOVED = 0.5  # share of the difference between inputs that goes to the weights


class QuantizedLinear:
    """``activation(x weightᵀ + bias)`` over rows: ``x`` (n, in) gives (n, out), both in float32 or both in bfloat16.

    ``largest`` (in,) has the largest absolute value that each input is known to take; without it none is smoothed.
    """

    def __init__(self, weight: Tensor, bias: Tensor, largest: Tensor | None = None) -> None:
        by = torch.ones(weight.shape[1])
        if largest is not None:
            by = largest.clamp_min(LEAST) ** MOVED / weight.abs().amax(0).clamp_min(LEAST) ** (1 - MOVED)
        smoothed = weight * by
        scales = (smoothed.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        values = (smoothed / scales[:, None]).round().to(torch.int8)
        self._weights = int8_kernel.packed(values, scales, bias, 1 / by)

    @staticmethod
    def fits(inputs: int) -> bool:
        """Whether there is a kernel for so many inputs."""
        return inputs <= int8_kernel.MAX_INPUTS

    def __call__(self, x: Tensor, activation: str | None = None) -> Tensor:
        """The layer's output; ``activation`` is one of transformers' names."""
        y, gelu = x.new_empty(len(x), self._weights.outputs), activation == "gelu"
        int8_kernel.linear(y, x, self._weights, gelu=gelu)
        return y if gelu else activated(y, activation)

    def adapted(self, x: Tensor, site: Site, runs: Runs, activation: str | None = None) -> Tensor:
        """The same with every run's low-rank products added before the activation."""
        y, gelu = x.new_empty(len(x), self._weights.outputs), activation == "gelu"
        products = lora_kernel.job(y, x, site.first, site.parts, runs.bounds, runs.table, gelu=gelu)
        int8_kernel.linear(y, x, self._weights, lora=products)
        return y if gelu else activated(y, activation)
