"""A frozen linear layer through a kernel of our own, which adds every run's low-rank products while a tile of rows is near."""

from __future__ import annotations

import torch
from torch import Tensor

from service.models import lora_kernel, product_kernel
from service.models.activations import activated
from service.models.lora import Runs, Site
from service.models.product_kernel import GROUP, MAX_INPUTS, Weights


class KernelLinear:
    """``activation(x weightᵀ + bias)`` over rows: ``x`` (n, in) gives (n, out), both in one type that the kernel reads."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.tiled = weights.tiled  # whether it reads factors in tiles

    def __call__(self, x: Tensor, activation: str | None = None) -> Tensor:
        """The layer's output; ``activation`` is one of transformers' names."""
        y, gelu = x.new_empty(len(x), self.weights.layer.outputs), activation == "gelu"
        product_kernel.linear(y, x, self.weights, gelu=gelu)
        return y if gelu else activated(y, activation)

    def adapted(self, x: Tensor, site: Site, runs: Runs, activation: str | None = None) -> Tensor:
        """The same with every run's low-rank products added before the activation."""
        y, gelu = x.new_empty(len(x), self.weights.layer.outputs), activation == "gelu"
        over = lora_kernel.CHANGED_ROWS if gelu else 0
        products = lora_kernel.job(y, x, site.first, site.parts, runs.bounds, runs.table, over)
        product_kernel.linear(y, x, self.weights, gelu=gelu, lora=products)
        return y if gelu else activated(y, activation)


class Bfloat16Linear(KernelLinear):
    """A layer whose weights and rows are bfloat16; sums are float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(product_kernel.in_bfloat16(weight, bias))

    @staticmethod
    def fits(inputs: int) -> bool:
        """Whether there is a kernel for so many inputs on this processor."""
        return product_kernel.bfloat16_available and inputs <= MAX_INPUTS and inputs % GROUP[torch.bfloat16] == 0


class Float32Linear(KernelLinear):
    """A layer whose rows and sums are float32; its weights are, too, or stay float16."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(product_kernel.in_float32(weight, bias))

    @staticmethod
    def fits(inputs: int) -> bool:
        """Whether there is a kernel for so many inputs on this processor."""
        return product_kernel.float32_available and inputs <= MAX_INPUTS
