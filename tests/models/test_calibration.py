"""What layers' inputs are like: every layer is looked at, whatever computes the encoder otherwise."""

from __future__ import annotations

from pathlib import Path

import torch

from service.models.base_weights import load_base
from service.models.calibration import SENTENCES, largest_inputs
from service.models.text_encoder import TextEncoder
from service.models.tokenizer import TextTokenizer


def test_every_layers_inputs_are_seen(tiny_base: Path) -> None:
    base, tokenize, cpu = load_base(str(tiny_base)), TextTokenizer(str(tiny_base)), torch.device("cpu")
    found = largest_inputs(base, tokenize, cpu)
    encoder = TextEncoder(base, cpu)
    layers = [TextEncoder.SITES] * (encoder.layers - 1) + [TextEncoder.LAST_SITES]
    assert set(found) == {f"{number}.{site}" for number, sites in enumerate(layers) for site in sites}
    assert all(bool((largest > 0).any()) and bool(largest.isfinite().all()) for largest in found.values())
    assert encoder.layers == 2
    first = encoder.halfway_and_last(encoder.pack(tokenize(SENTENCES)))[0]
    torch.testing.assert_close(found["1.kv"], first.abs().amax(0), atol=1e-4, rtol=1e-4)
