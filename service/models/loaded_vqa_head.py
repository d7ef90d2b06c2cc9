"""A head of visual question answering on its device, ready to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from service.models import product_kernel
from service.models.kernel_linear import Float32Linear
from service.models.linear import product
from service.models.values import copied

FLOAT = 4  # bytes
Layer = Callable[[Tensor], Tensor]  # from (n, in) to (n, out)


@dataclass(frozen=True, slots=True)
class LoadedPrior:
    """What the image alone says of every answer, and how much that counts by the question: ``gate`` has a weight and a bias."""

    said: Layer
    gate: tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class LoadedVqaHead:
    """Layers that compute in float32; ``inputs`` is how many numbers of both embeddings the first of them reads."""

    hidden: Layer
    output: Layer
    inputs: int
    prior: LoadedPrior | None

    def logits(self, image: Tensor, question: Tensor) -> Tensor:
        """Logits, (n, answers), of image embeddings, (n, d), and question embeddings, (n, e), of which it may read less."""
        question = question[:, : self.inputs - image.shape[1]]
        logits = self.output(self.hidden(torch.cat([image, question], dim=-1)).relu_())
        if self.prior is not None:
            logits += self.prior.said(image) * linear(question, *self.prior.gate)
        return logits


def layer(weight: Tensor, bias: Tensor, device: torch.device) -> Layer:
    """A layer from ``weight`` (out, in) and ``bias`` (out,), in the types of their file, on ``device``.

    The kernel keeps weights in float16 as they are: over a few rows it takes as long as they take to come from memory.
    """
    if _by_kernel(weight, device):
        return Float32Linear(weight, bias)
    return partial(product, weight=copied(weight, device), bias=copied(bias, device))


def layer_bytes(weight: Tensor, bias: Tensor, device: torch.device) -> int:
    """What :func:`layer` takes on the device."""
    if _by_kernel(weight, device):
        return product_kernel.float32_bytes(weight)
    return FLOAT * (weight.numel() + bias.numel())


def _by_kernel(weight: Tensor, device: torch.device) -> bool:
    return device.type == "cpu" and Float32Linear.fits(weight.shape[1])
