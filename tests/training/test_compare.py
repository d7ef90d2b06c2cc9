"""Comparing two adapters: it finds what was planted, and nothing between equals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.store.bundle import Bundle
from tests.support.command import fails, quickchange
from training.anywhere import Places, published
from training.bundles import weights_bytes, write_bundle
from training.compare import Require, compare
from training.data import DataError
from training.data_types import MULTI, REGRESSION, SINGLE
from training.scored import Scored

LABELS = ("a", "b", "c")


def answers(right: float, rows: int = 400, seed: int = 0) -> Scored:
    """Rows of three labels, of which an adapter gets this share right."""
    draw = np.random.default_rng(seed)
    true = np.random.default_rng(99).integers(0, 3, rows)
    given = np.where(draw.random(rows) < right, true, (true + 1) % 3)
    logits = torch.nn.functional.one_hot(torch.from_numpy(given), 3).double()
    return Scored(SINGLE, LABELS, true.tolist(), logits, slices={"even": range(0, rows, 2), "first": range(20)})


def test_a_planted_improvement_is_found_and_said() -> None:
    found = compare(answers(0.70), answers(0.85, seed=1))
    assert found.verdict == "better" and found.sentence.startswith("B is better than A: accuracy 0.")
    assert found.difference.low > 0 and found.difference.p_value < 0.01
    assert compare(answers(0.85, seed=1), answers(0.70)).verdict == "worse"


def test_between_equals_there_is_no_evidence() -> None:
    found = compare(answers(0.75), answers(0.75, seed=1))
    assert found.verdict == "no evidence"
    assert found.sentence.startswith("There is no evidence that B is better or worse than A: accuracy")
    assert found.difference.low < 0 < found.difference.high


@pytest.mark.parametrize(
    ("a", "b", "better", "not_worse"), [(0.7, 0.85, True, True), (0.75, 0.75, False, True), (0.85, 0.7, False, False)]
)
def test_what_may_be_required(a: float, b: float, better: bool, not_worse: bool) -> None:
    found = compare(answers(a), answers(b, seed=1))
    assert (found.meets(Require.BETTER), found.meets(Require.NOT_WORSE)) == (better, not_worse)


def test_of_errors_the_lower_one_is_the_better() -> None:
    draw = np.random.default_rng(0)
    true = draw.normal(size=(200, 1))
    near, far = (
        Scored(REGRESSION, ("stars",), [tuple(row) for row in true], torch.from_numpy(true + draw.normal(size=(200, 1)) * noise))
        for noise in (0.1, 1.0)
    )
    assert compare(far, near, "mae").verdict == compare(far, near, "pearson").verdict == "better"
    assert compare(near, far, "rmse").verdict == "worse"
    assert len(compare(far, near).disagreements()["furthest apart"]) == 20


def test_sets_of_labels() -> None:
    has = np.random.default_rng(0).random((300, 2)) < 0.4
    true = [tuple(np.flatnonzero(row).tolist()) for row in has]
    right = torch.from_numpy(has * 4.0 - 2)
    wrong = right.clone()
    wrong[:90] *= -1
    found = compare(Scored(MULTI, ("a", "b"), true, wrong), Scored(MULTI, ("a", "b"), true, right))
    assert (found.figure, found.verdict) == ("macro_f1", "better")
    assert found.disagreements() == {"only B right": list(range(90)), "only A right": [], "both wrong": []}


def test_rows_of_disagreement_are_those_of_the_answers() -> None:
    a, b = answers(0.7, 60), answers(0.7, 60, seed=1)
    found = compare(a, b).disagreements()
    for row in range(60):
        where = [name for name, rows in found.items() if row in rows]
        if a.given[row] == b.given[row]:
            assert where == []
        else:
            assert where == ["only B right" if b.right[row] else "only A right" if a.right[row] else "both wrong"]


def test_a_figure_of_another_kind_of_problem_is_refused() -> None:
    with pytest.raises(DataError, match="--figure mae: not a figure of single_label_classification; accepted: accuracy"):
        compare(answers(0.7), answers(0.7), "mae")


@pytest.fixture(scope="module")
def folders(tiny_base: Path, bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """An adapter, one that always says the opposite, and data that the first is right about in four rows of five."""
    root = tmp_path_factory.mktemp("compared")
    texts = [f"{a} {b} {i}" for i in range(30) for a in ("fine", "awful", "so") for b in ("day", "luck")]
    with published(bundles["irony-2"], "b", Places(base_model=str(tiny_base))) as adapter:
        given = [max(scores, key=lambda label: scores[label]) for scores in adapter.classify(texts)]
    other = {"literal": "ironic", "ironic": "literal"}
    rows = [f"{text},{other[label] if i % 5 == 0 else label}" for i, (text, label) in enumerate(zip(texts, given, strict=True))]
    (root / "texts.csv").write_text("\n".join(["text,label", *rows]), "utf-8")
    opposite = {name: -tensor if ".classifier." in name else tensor for name, tensor in bundles["irony-2"].tensors.items()}
    write_bundle(bundles["irony-2"], root / "b")
    write_bundle(Bundle.assemble(bundles["irony-2"].config, weights_bytes(opposite), bundles["irony-2"].manifest), root / "a")
    return {name: str(root / name) for name in ("a", "b", "texts.csv")}


def run(folders: Mapping[str, str], tiny_base: Path, a: str, b: str, *options: str) -> tuple[int, dict[str, Any]]:
    arguments: Sequence[str] = (folders[a], folders[b], folders["texts.csv"], "--split", "all", "--base-model", str(tiny_base))
    result = quickchange("compare", *arguments, "--json", *options)
    return result.exit_code, json.loads(result.stdout)


def test_the_command(folders: Mapping[str, str], tiny_base: Path, tmp_path: Path) -> None:
    code, found = run(folders, tiny_base, "a", "b", "--require", "better", "--report", str(tmp_path / "report"))
    assert (code, found["verdict"]) == (0, "better") and found["difference"] == pytest.approx(0.6)
    assert found["sentence"] in (tmp_path / "report" / "report.md").read_text("utf-8")
    assert run(folders, tiny_base, "b", "a")[0] == 0
    assert run(folders, tiny_base, "b", "a", "--require", "not-worse")[0] == 1
    code, same = run(folders, tiny_base, "b", "b", "--require", "not-worse")
    assert (code, same["verdict"], same["p_value"]) == (0, "no evidence", 1.0)
    assert not any(same["disagreements"].values())


def test_what_is_wrong_is_one_line(folders: Mapping[str, str], tiny_base: Path) -> None:
    arguments = (folders["a"], folders["b"], folders["texts.csv"], "--base-model", str(tiny_base))
    fails(quickchange("compare", *arguments, "--figure", "bleu"), "--figure bleu: not a figure of single_label_classification")
    fails(quickchange("compare", folders["a"], "nowhere", *arguments[2:], "--adapters-dir", "none"), "nowhere: no such folder")
