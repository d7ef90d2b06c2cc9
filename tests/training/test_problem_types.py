"""What is trained is what is served: each problem type from rows to the figures of its bundle, computed by the server's task."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.words import problem, recipe
from training.data_types import MULTI, REGRESSION, SINGLE
from training.evaluate import evaluate_text
from training.text_run import RunOptions
from training.train_text_adapter import train


@pytest.mark.parametrize(
    ("problem_type", "figure", "least"), [(SINGLE, "accuracy", 0.8), (MULTI, "macro_f1", 0.8), (REGRESSION, "pearson", 0.5)]
)
def test_an_adapter_of_each_problem_type_is_served_with_the_figures_of_its_manifest(
    tiny_base: Path, problem_type: str, figure: str, least: float
) -> None:
    data = problem(240, problem_type)
    bundle = train(data, recipe(tiny_base, epochs=5), "words", "words", RunOptions(quiet=True))
    assert bundle.manifest.problem_type == problem_type
    assert (bundle.manifest.thresholds is not None) == (problem_type == MULTI)
    served = evaluate_text(bundle, data.splits["validation"], data.labels, str(tiny_base))
    assert served == pytest.approx(bundle.manifest.metrics["validation"], rel=0.01, abs=0.003)
    assert served[figure] >= least
