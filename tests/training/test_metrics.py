"""The figures of every problem type, against the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.data_types import MULTI, REGRESSION, SINGLE
from training.metrics import decided, figures, per_label
from training.statistics import FIGURES, figure_of

WIDTH = 4


def rows(count: int = 300, seed: int = 0) -> tuple[dict[str, list[object]], torch.Tensor]:
    """Random targets of each problem type, and logits that agree with them a little."""
    maker = torch.Generator().manual_seed(seed)
    label = torch.randint(WIDTH, (count,), generator=maker)
    has = torch.rand(count, WIDTH, generator=maker) < 0.3
    logits = torch.randn(count, WIDTH, generator=maker) + 2 * torch.eye(WIDTH)[label] + has
    values = (logits + torch.randn(count, WIDTH, generator=maker)).tolist()
    targets: dict[str, list[object]] = {
        SINGLE: label.tolist(),
        MULTI: [tuple(row.nonzero()[:, 0].tolist()) for row in has],
        REGRESSION: [tuple(row) for row in values],
    }
    return targets, logits


def test_single_labels_by_hand() -> None:
    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2]])
    found = figures(SINGLE, [0, 1, 1, 2], logits, 3)
    assert found == {"accuracy": 0.75, "macro_f1": round((2 / 3 + 2 / 3 + 1) / 3, 4), "macro_recall": round((1 + 0.5 + 1) / 3, 4)}
    assert per_label(SINGLE, [0, 1, 1, 2], logits, ["a", "b", "c"])["b"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": 0.6667,
        "support": 2,
    }


def test_label_sets_by_hand() -> None:
    logits = torch.tensor([[3.0, -3], [3, 3], [-3, 0.1]])
    true = [(0,), (0,), ()]
    assert figures(MULTI, true, logits, 2) == {"accuracy": 0.3333, "macro_f1": 0.5, "micro_f1": 0.6667}
    assert figures(MULTI, true, logits, 2, (0.5, 0.99)) == {"accuracy": 1.0, "macro_f1": 0.5, "micro_f1": 1.0}


def test_values_by_hand() -> None:
    given = torch.tensor([[1.0], [2], [4]])
    found = figures(REGRESSION, [1.0, 3.0, 4.0], given, 1)
    assert (found["mae"], found["rmse"], found["spearman"]) == (0.3333, 0.5774, 1.0)
    assert found["pearson"] == round(float(np.corrcoef([1, 3, 4], [1, 2, 4])[0, 1]), 4)


def test_what_never_varies_correlates_with_nothing() -> None:
    assert figures(REGRESSION, [1.0, 2.0], torch.ones(2, 1), 1)["pearson"] == 0.0


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_the_fast_figures_of_the_bootstrap_are_those_of_the_libraries(problem_type: str) -> None:
    from training.metrics import as_array

    targets, logits = rows()
    true = targets[problem_type]
    found = figures(problem_type, true, logits, WIDTH)
    assert tuple(found) == FIGURES[problem_type]
    for name, value in found.items():
        fast = figure_of(problem_type, name, WIDTH)
        assert fast(as_array(problem_type, true, WIDTH), decided(problem_type, logits)) == pytest.approx(value, abs=6e-5), name
