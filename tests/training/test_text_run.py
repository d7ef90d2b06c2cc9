"""Runs: every problem type and method, the best epoch, an early end, resumption, and what stops a run before it starts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from transformers import AutoModelForSequenceClassification

from service.errors import QuickchangeError
from tests.training.words import problem, recipe
from training.calibration import expected_calibration_error
from training.data import DataError
from training.data_types import MULTI, REGRESSION
from training.run_state import CHECKPOINT, Interrupted
from training.text_full import save_full
from training.text_model import Recipe, enough_epochs
from training.text_run import FittedText, RunOptions, fit_text

QUIET = RunOptions(quiet=True)


def weights(fitted: FittedText) -> bytes:
    data: bytes = save(fitted.tensors)
    return data


def stopped_at(step: int, number: int) -> Callable[[Mapping[str, float]], None]:
    """A progress callback that sends this process a signal after a step."""
    return lambda progress: os.kill(os.getpid(), number) if progress["step"] == step else None


def test_sets_of_labels_are_learnt_with_thresholds(tiny_base: Path) -> None:
    fitted = fit_text(problem(problem_type=MULTI), recipe(tiny_base, epochs=4, class_weights="sqrt"), QUIET)
    assert fitted.metrics["validation"]["macro_f1"] >= 0.9
    assert fitted.thresholds and all(0 < threshold < 1 for threshold in fitted.thresholds)
    assert fitted.recipe.select == "macro_f1" and fitted.calibration is None


def test_values_are_learnt_and_given_in_their_own_units(tiny_base: Path) -> None:
    data = problem(240, REGRESSION)
    fitted = fit_text(data, recipe(tiny_base, epochs=8), QUIET)
    true = torch.tensor(data.splits["validation"].labels)
    given = fitted.logits["validation"][:, 0]
    assert (given - true).square().mean().sqrt().item() == pytest.approx(fitted.metrics["validation"]["rmse"], abs=0.01)
    assert fitted.metrics["validation"]["rmse"] < 0.6 * true.std().item()
    assert fitted.metrics["validation"]["pearson"] > 0.8


def test_full_trains_everything_and_transformers_loads_what_it_writes(tiny_base: Path, tmp_path: Path) -> None:
    data = problem()
    fitted = fit_text(data, recipe(tiny_base, method="full", learning_rate=1e-3), QUIET)
    assert fitted.trainable_parameters == fitted.total_parameters == sum(p.numel() for p in fitted.model.parameters())
    save_full(fitted, tmp_path / "model")
    save_full(fitted, tmp_path / "model")  # in the place of the first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    inputs = fitted.tokenizer(data.splits["validation"].texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert torch.allclose(loaded(**inputs).logits, fitted.logits["validation"], atol=1e-4)
    assert loaded.config.id2label == {0: "bad", 1: "good"}


def test_save_full_leaves_other_peoples_files_alone(tiny_base: Path, tmp_path: Path) -> None:
    fitted = fit_text(problem(40, held_out=10), recipe(tiny_base, method="full", epochs=1), QUIET)
    (tmp_path / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(DataError, match="holds something that is no model"):
        save_full(fitted, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_lora_counts_its_own_parameters_and_those_of_the_base_once(tiny_base: Path) -> None:
    fitted = fit_text(problem(40, held_out=10), recipe(tiny_base, epochs=1, r=4, target_modules="query,value"), QUIET)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=2).num_parameters()
    adapter, head = 2 * 2 * 4 * (32 + 32), 32 * 2 + 2
    assert (fitted.trainable_parameters, fitted.total_parameters) == (adapter + head, base + adapter)
    assert fitted.seconds_per_epoch > 0 and fitted.peak_memory_bytes > 2**20


def test_logits_are_calibrated_unless_asked_not_to(tiny_base: Path) -> None:
    data, chosen = problem(), recipe(tiny_base, epochs=2)
    plain, calibrated = (fit_text(data, replace(chosen, calibrate=asked), QUIET) for asked in (False, True))
    assert plain.calibration is None and calibrated.calibration
    scaled = plain.logits["validation"] / calibrated.calibration["temperature"]
    assert torch.allclose(scaled, calibrated.logits["validation"], rtol=0.02, atol=0.05)
    found = expected_calibration_error(calibrated.logits["validation"], data.splits["validation"].labels)
    assert found == pytest.approx(calibrated.calibration["ece_after"], abs=0.02)


def test_a_run_without_an_error_goes_on_while_it_gets_surer(tiny_base: Path) -> None:
    curve = fit_text(problem(), recipe(tiny_base, epochs=16, patience=2), QUIET).curve
    first = next(point for point in curve if point["accuracy"] == 1)
    assert len(curve) > first["epoch"] + 2 and curve[-1]["loss"] < first["loss"]


def test_patience_ends_a_run_that_gets_no_better(tiny_base: Path) -> None:
    fitted = fit_text(problem(40, held_out=10), recipe(tiny_base, epochs=9, patience=2, learning_rate=0.0), QUIET)
    assert [point["epoch"] for point in fitted.curve] == [1, 2, 3]


@pytest.mark.parametrize(
    ("method", "average", "r_drop"), [("lora", 0.0, 0.0), ("full", 0.0, 1.0), ("lora", 0.6, 1.0), ("full", 0.2, 0.0)]
)
def test_a_stopped_run_ends_with_the_same_bytes(
    tiny_base: Path, tmp_path: Path, method: str, average: float, r_drop: float
) -> None:
    chosen = recipe(tiny_base, method=method, epochs=2, lora_dropout=0.1, average=average, r_drop=r_drop)
    whole = fit_text(problem(), chosen, QUIET)
    for step, number in ((4, signal.SIGTERM), (22, signal.SIGINT)):  # in the middle of either epoch
        options = RunOptions(tmp_path, on_progress=stopped_at(step, number), quiet=True)
        with pytest.raises(Interrupted, match=f"after step {step} of 30; the same command goes on"):
            fit_text(problem(), chosen, options)
        assert (tmp_path / CHECKPOINT).is_file()
    resumed = fit_text(problem(), chosen, RunOptions(tmp_path, quiet=True))
    assert weights(resumed) == weights(whole)
    assert resumed.curve == whole.curve and resumed.metrics == whole.metrics
    assert not list(tmp_path.glob("*.safetensors*"))
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_a_callback_that_raises_stops_the_run_and_the_checkpoint_stays(tiny_base: Path, tmp_path: Path) -> None:
    class Pruned(Exception):
        pass

    def prune(epoch: int, metrics: Mapping[str, float]) -> None:
        assert 0 <= metrics["accuracy"] <= 1
        if epoch == 1:
            raise Pruned

    with pytest.raises(Pruned):
        fit_text(problem(40, held_out=10), recipe(tiny_base), RunOptions(tmp_path, after_epoch=prune, quiet=True))
    assert (tmp_path / CHECKPOINT).is_file()


def test_another_runs_checkpoint_is_refused_until_it_is_started_over(tiny_base: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_base, epochs=1)
    with pytest.raises(Interrupted):
        fit_text(problem(), chosen, RunOptions(tmp_path, on_progress=stopped_at(2, signal.SIGTERM), quiet=True))
    with pytest.raises(QuickchangeError, match=r"unfinished run with epochs 1 \(now 2\); --fresh"):
        fit_text(problem(), replace(chosen, epochs=2), RunOptions(tmp_path, quiet=True))
    with pytest.raises(QuickchangeError, match=r"unfinished run with data sha256:\w+ \(now sha256"):
        fit_text(problem(80), chosen, RunOptions(tmp_path, quiet=True))
    assert len(fit_text(problem(80), chosen, RunOptions(tmp_path, quiet=True, fresh=True)).curve) == 1


@pytest.mark.parametrize(
    ("changes", "report_to", "says"),
    [
        ({"method": "qlora"}, "tensorboard", "--method qlora: accepted for this data are lora, full"),
        ({"select": "rmse"}, "tensorboard", "--select rmse: accepted for this data are accuracy, macro_f1, macro_recall"),
        ({"precision": "fp8"}, "tensorboard", "--precision fp8"),
        ({"class_weights": "some"}, "tensorboard", "--class-weights some"),
        ({}, "wandb", "the package wandb is not installed; pip install wandb"),
        ({}, "excel", "--report-to excel: accepted are tensorboard, wandb, mlflow, trackio"),
    ],
)
def test_what_there_is_not_is_said_in_one_line(tiny_base: Path, changes: dict[str, str], report_to: str, says: str) -> None:
    with pytest.raises(DataError) as refused:
        fit_text(problem(40), recipe(tiny_base, **changes), RunOptions(report_to=(report_to,), quiet=True))
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_few_rows_get_epochs_enough() -> None:
    assert [enough_epochs(rows, 32) for rows in (10, 144, 3200, 45_000)] == [100, 60, 3, 3]
    assert Recipe().epochs == 3
