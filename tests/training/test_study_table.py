"""The arithmetic of a study: Holm's correction, the reference, the best by validation, and sentences that follow the figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from training.data import DataError, Split, TextData
from training.report import Report
from training.study_findings import findings
from training.study_grid import Variant, shown_names
from training.study_report import report_of, representatives
from training.study_table import Row, Table, holm, tabulate
from training.text_model import Recipe

TRUE = [0, 1] * 100


def data(problem_type: str = "single_label_classification", labels: list[Any] | None = None) -> TextData:
    split = Split([f"text {i}" for i in range(200)], TRUE if labels is None else labels)
    return TextData(("no", "yes"), {"train": split, "validation": split, "test": split}, problem_type)


def logits(wrong: int) -> Tensor:
    """Logits of a model that errs in the first rows."""
    given = torch.tensor([1 - label if row < wrong else label for row, label in enumerate(TRUE)])
    return torch.nn.functional.one_hot(given, 2).float() * 4


def row(method: str, r: int, wrong: tuple[int, ...], validation: float, *, targets: str = "query,value", **extra: Any) -> Row:
    size = 100_000_000 if method == "full" else r * 100_000
    results = [
        {
            "seed": seed,
            "trainable_parameters": size // 4,
            "total_parameters": 25_000_000,
            "seconds_per_epoch": 20.0 if method == "full" else 10.0,
            "peak_memory_bytes": 2_000_000_000 if method == "full" else 1_500_000_000,
            "file_bytes": size,
            "metrics": {"validation": {"accuracy": validation}, "test": dict.fromkeys(FIGURES, 1 - count / 200)},
            "curve": [{"epoch": 1, "loss": 0.5, "accuracy": validation}],
            "thresholds": None,
            "recipe": {"device": "cpu", "precision": "fp32"},
            **extra,
        }
        for seed, count in enumerate(wrong)
    ]
    variant = Variant("minilm", "sha256:1", Recipe(method=method, r=r, target_modules=targets))
    return Row(variant, results, [{"validation": logits(count), "test": logits(count)} for count in wrong])


FIGURES = ("accuracy", "macro_f1", "macro_recall", "micro_f1")


def rows() -> list[Row]:
    return [
        row("full", 8, (20, 22), 0.90),
        row("lora", 1, (80, 84), 0.60),
        row("lora", 8, (20, 24), 0.895),
        row("lora", 8, (18, 20), 0.92, targets="all-linear"),
    ]


def tabled(
    these: list[Row], of: TextData | None = None, reference: str | None = None, failures: dict[str, str] | None = None
) -> Table:
    return tabulate(of or data(), these, reference, failures or {}, samples=(300, 600))


def test_holm_corrects_in_the_order_given() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_figures_are_means_over_seeds_with_intervals_over_rows() -> None:
    table = tabled(rows())
    figure = table.rows[0].figures["accuracy"]
    assert figure.mean == pytest.approx(0.895) and figure.deviation == pytest.approx(0.00707, abs=1e-4)
    assert 0.84 < figure.low < 0.87 and 0.92 < figure.high < 0.95


def test_full_fine_tuning_is_the_reference_unless_another_is_asked_for() -> None:
    table = tabled(rows())
    assert table.reference.variant.name == "minilm full" and table.reference.paired is None
    assert table.best.variant.name == "minilm r=8 all-linear"
    worse, equal, better = table.rows[1:]
    assert worse.differs and worse.paired and worse.paired.difference == pytest.approx(-0.305)
    assert not equal.differs
    assert better.paired and better.corrected_p is not None and better.corrected_p >= better.paired.p_value
    assert tabled(rows()[1:]).reference.variant.name == "minilm r=8 all-linear"
    assert tabled(rows(), reference="minilm r=1 query,value").reference.variant.recipe.r == 1
    with pytest.raises(DataError, match="--reference minilm r=3: no such variant; there is minilm full"):
        tabled(rows(), reference="minilm r=3")


def test_findings_follow_the_figures() -> None:
    said = " ".join(findings(tabled(rows())))
    assert "Best on validation is **minilm r=8 all-linear**: accuracy 0.905 on test" in said
    assert "Against **minilm full**, minilm r=1 query,value is worse" in said and "the other 2 differ no more" in said
    assert "the best LoRA on validation (r=8 all-linear) is +1.0 points of accuracy from full fine-tuning" in said
    assert "0.50 × as long an epoch and 0.75 × the memory, and its file is 125 times smaller (0.8 against 100 MB)" in said
    assert "LoRA on query,value is -1.5 points of accuracy from LoRA on all-linear, mean over rank 8" in said
    assert "LoRA on query,value goes from 0.590 at r=1 to 0.890 at r=8; validation would choose r=8 (0.890)" in said
    alike = " ".join(findings(tabled([rows()[0], rows()[2]])))
    assert "No variant differs from **minilm full** in accuracy beyond chance" in alike and "Against" not in alike


def test_a_study_of_one_variant_has_a_report_too() -> None:
    table = tabled(rows()[:1], failures={"minilm r=4, seed 0": "RuntimeError: no"})
    report = report_of(table, "made/up", "a machine")
    assert isinstance(report, Report) and "| minilm r=4, seed 0 | RuntimeError: no |" in report.markdown()
    assert json.loads(report.json())["figures"]["variants"][0]["against_reference"] is None


def test_the_representatives_are_the_best_of_each_group_once() -> None:
    chosen = [r.variant.name for r in representatives(tabled(rows()))]
    assert chosen == ["minilm full", "minilm r=8 all-linear", "minilm r=8 query,value"]


def test_several_labels_a_row_are_studied_alike() -> None:
    sets = data("multi_label_classification", [(label,) for label in TRUE])
    several = rows()[:2]
    for one in several:
        for result in one.results:
            result["metrics"]["validation"] = {"macro_f1": 0.5}
            result["thresholds"] = [0.6, 0.6]
    table = tabled(several, sets)
    assert table.headline == "macro_f1" and set(table.rows[0].figures) == {"accuracy", "macro_f1", "micro_f1"}
    assert "## Confusion matrices" not in report_of(table, "made/up", "a machine").markdown()


def test_base_models_are_named_without_where_they_lie() -> None:
    assert shown_names(["minilm", "all-MiniLM-L6-v2", "a/checkpoint", "b/checkpoint", "huawei-noah/TinyBERT"]) == [
        "minilm", "minilm-2", "checkpoint", "checkpoint-2", "TinyBERT",
    ]  # fmt: skip
