"""Activations by transformers' names, in place where torch can."""

from __future__ import annotations

import torch
from torch import Tensor

# As the fused product calls them: the operation and its algorithm.
FUSED = {"gelu": ("gelu", "none"), "gelu_new": ("gelu", "tanh"), "gelu_pytorch_tanh": ("gelu", "tanh"), "relu": ("relu", "")}


def activated(y: Tensor, activation: str | None) -> Tensor:
    """An activation by transformers' name, in place where torch can; None leaves the values as they are."""
    if activation is None:
        return y
    operation, algorithm = FUSED.get(activation, (activation, ""))
    if operation == "gelu":
        # In place, which the functional form does not offer: a new tensor of this size costs more than the activation.
        result: Tensor = torch.ops.aten.gelu_(y, approximate=algorithm)
    elif operation == "relu":
        result = y.relu_()
    else:
        from transformers.activations import ACT2FN  # which takes seconds

        result = ACT2FN[activation](y)
    return result
