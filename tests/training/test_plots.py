"""Every plot is a PNG that a bundle may carry."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from training import plots

MOST_BYTES = 512 * 1024
CURVE = [{"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5 + 0.01 * epoch, "macro_f1": 0.4} for epoch in range(1, 31)]
AWKWARD = ["$x^2$", "a very long name of a label indeed", "漢字 🙂"]


def many() -> bytes:
    draw = np.random.default_rng(0)
    true = draw.integers(0, 430, 5000)
    return plots.confusion_matrix(true.tolist(), draw.permutation(true).tolist(), [f"answer {i}" for i in range(430)])


PLOTS: dict[str, Callable[[], bytes]] = {
    "learning curves": lambda: plots.learning_curves(CURVE),
    "one epoch": lambda: plots.learning_curves(CURVE[:1]),
    "confusion": lambda: plots.confusion_matrix([0, 1, 2, 2], [0, 1, 1, 2], AWKWARD),
    "a label without rows": lambda: plots.confusion_matrix([0, 0], [0, 1], ["a", "b", "c"]),
    "hundreds of labels": many,
    "reliability": lambda: plots.reliability(torch.randn(50, 3) * 3, [i % 3 for i in range(50)]),
    "size": lambda: plots.size_against_accuracy(
        [plots.Point("full", 498.0, 0.71, (0.70, 0.72), "full"), plots.Point("r = 8", 1.8, 0.70, None, "LoRA")]
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_it_is_a_png_of_modest_size_and_not_blank(name: str) -> None:
    png = PLOTS[name]()
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and len(png) < MOST_BYTES
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.load()
        assert min(image.size) > 300 and len(image.convert("L").getcolors() or ()) > 20


def test_the_same_figures_are_the_same_bytes() -> None:
    assert PLOTS["confusion"]() == PLOTS["confusion"]()
    assert PLOTS["confusion"]() != plots.confusion_matrix([0, 1, 2, 2], [0, 1, 2, 2], AWKWARD)
