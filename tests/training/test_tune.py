"""The search on a tiny base: its best bundle, its report, going on, and what interrupts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from service.store.bundle import read_bundle
from tests.support.words import write_words
from training import tune
from training.tune_search import Space

SPACE = Space([1, 2], ["query,value"], (1, 2))


def run(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(tune.main)
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, list(arguments))
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def command(data: Path, tiny_base: Path) -> list[str]:
    sizes = ["--rank", "1,2", "--epochs", "1,2", "--batch-size", "16", "--precision", "fp32"]
    return [str(data), "--base-model", str(tiny_base), *sizes]


@pytest.fixture(scope="module")
def done(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    code, output = run(*command, "--trials", "6", "--output", str(folder))
    assert code == 0, output
    return folder


def figures(folder: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads((folder / "report.json").read_text("utf-8"))["figures"]
    return read


def test_the_best_trial_is_a_bundle(done: Path) -> None:
    best = json.loads((done / "report.json").read_text("utf-8"))["figures"]
    values = [trial["value"] for trial in best["trials"] if trial["state"] == "complete"]
    assert len(best["trials"]) == 6 and best["best"]["value"] == max(values)
    manifest = read_bundle(done / "best").manifest
    assert manifest.metrics == best["best"]["metrics"]
    assert manifest.recipe["r"] == best["best"]["recipe"]["rank"]
    assert manifest.recipe["learning_rate"] == best["best"]["recipe"]["learning_rate"]


def test_the_report_has_the_trials_and_plots(done: Path) -> None:
    text = (done / "report.md").read_text("utf-8")
    assert text.count("| best |") == 1 and "## The best recipe" in text and "plots/trials.png" in text
    assert all(trial["by_epoch"] for trial in figures(done)["trials"])  # type: ignore[attr-defined]


def test_going_on_carries_out_what_is_missing(done: Path, command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "tune"
    shutil.copytree(done, folder)
    before = figures(folder)["trials"]
    code, output = run(*command, "--trials", "7", "--output", str(folder))
    assert code == 0, output
    after = figures(folder)["trials"]
    assert after[:6] == before and len(after) == 7  # type: ignore[index,arg-type]
    code, output = run(*command, "--trials", "7", "--output", str(folder), "--epochs", "1,3")
    assert code == 1 and "holds a search with epochs [1, 2], not [1, 3]: give the options of that search" in output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--pruner", "guess"], "--pruner guess: no such pruner; accepted: median, hyperband, none"),
        (["--epochs", "3,1"], "--epochs 3,1: accepted: the fewest and the most, such as 2,8"),
        (["--rank", "few"], "--rank few: accepted: whole numbers with commas"),
        (["--base-model", "./nowhere"], "./nowhere: no model there"),
    ],
)
def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    code, output = run(str(data), "--output", str(tmp_path / "out"), *arguments)
    assert code == 1 and line in output and output.count("error:") == 1
    assert not (tmp_path / "out").exists()
