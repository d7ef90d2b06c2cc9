"""What the inputs of an encoder's layers are like, from sentences, for the precision that has to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from service.models.bank_runs import Worn
from service.models.base_weights import BaseWeights
from service.models.linear import Dtype
from service.models.lora import Runs
from service.models.text_encoder import TextEncoder

# Of the kinds that classifiers are asked about. Which inputs are large depends on the model far more than on the text.
SENTENCES = (
    "I love this so much, thank you!",
    "Why does nobody ever fix the trains? Two hours late again.",
    "The meeting is on Tuesday at 10 in room 4.",
    "@user you are wrong about that and you know it #facts",
    "New phone, new me. 5 stars, would buy again!",
    "What colour is the chair next to the window?",
    "He said that the government will raise taxes in March 2015.",
    "lol ok sure 😂😂 whatever",
    "Breaking: earthquake of magnitude 6.1 near the coast",
    "I don't think I can do this anymore...",
    "http link in bio, check it out",
    "The quick brown fox jumps over the lazy dog.",
)


def text_encoder(
    base: BaseWeights, tokenize: Callable[[Sequence[str]], list[list[int]]], device: torch.device, dtype: Dtype = "fp32"
) -> TextEncoder:
    """The encoder in a precision; with int8, from float32 on :data:`SENTENCES`, which takes a forward."""
    if dtype != "int8":
        return TextEncoder(base, device, dtype)
    return TextEncoder(base, device, dtype, largest_inputs(base, tokenize, device))


def largest_inputs(
    base: BaseWeights, tokenize: Callable[[Sequence[str]], list[list[int]]], device: torch.device
) -> dict[str, Tensor]:
    """The largest absolute value (in,) that :data:`SENTENCES` bring to each input of every site but the pooler."""
    observed = _Observed(base, device)
    packed = observed.pack(tokenize(SENTENCES))
    observed.tokens = packed.tokens
    observed.states(packed)
    return observed.largest


class _Observed(TextEncoder):
    """An encoder that keeps the largest absolute value of each input of each site, of the first ``tokens`` lines."""

    def __init__(self, base: BaseWeights, device: torch.device) -> None:
        super().__init__(base, device)
        self._whole = None  # whose steps nobody sees
        self.tokens = 0  # the lines after them only fill up the size, and no row looks at them
        self.largest: dict[str, Tensor] = {}

    def _linear(self, x: Tensor, name: str, runs: Runs | Worn, activation: str | None = None) -> Tensor:
        self.largest[name] = x[: self.tokens].abs().amax(0)
        return super()._linear(x, name, runs, activation)
