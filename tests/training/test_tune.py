"""The search on a tiny base: its best bundle, its report, going on, and what interrupts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from service.store.bundle import read_bundle
from tests.support.command import script
from tests.support.words import words_data, write_words
from training import tune
from training.data import DataError
from training.text_model import Recipe
from training.tune_search import Search, Space, opened

SPACE = Space([1, 2], ["query,value"], (1, 2))
PROBLEM = words_data()
DISTRIBUTIONS = {
    "rank": CategoricalDistribution([1, 2]),
    "scaling": CategoricalDistribution([1, 2, 4]),
    "target_modules": CategoricalDistribution(["query,value"]),
    "learning_rate": FloatDistribution(1e-4, 5e-3, log=True),
    "lora_dropout": FloatDistribution(0.0, 0.3, step=0.05),
    "epochs": IntDistribution(1, 2),
}


run = partial(script, tune.main)


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


@pytest.fixture
def search(tiny_base: Path, tmp_path: Path) -> Iterator[Search]:
    with reopened(tiny_base, tmp_path) as found:
        yield found


def reopened(base: Path, folder: Path) -> AbstractContextManager[Search]:
    recipe = Recipe(base_model=str(base), batch_size=16, precision="fp32").checked(PROBLEM)
    return opened(PROBLEM, "made/up", recipe, SPACE, folder / "search", "median")


def test_a_trial_that_is_interrupted_goes_on(search: Search) -> None:
    steps: list[float] = []

    def interrupt(state: Mapping[str, float]) -> None:
        if state["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        search.try_one(interrupt)
    assert search.ended == []
    trial = search.try_one(lambda state: steps.append(state["step"]))
    assert trial.params == search.study.trials[0].params and steps[0] == 3
    assert [ended.number for ended in search.complete] == [trial.number]


def test_a_trial_that_died_with_its_process_is_tried_again(search: Search, tiny_base: Path, tmp_path: Path) -> None:
    died = search.study.ask()
    search.space.suggest(died, search.common)
    with reopened(tiny_base, tmp_path) as again:
        assert again.ended == []
        assert again.try_one(lambda _state: None).params == died.params


def test_trials_that_fall_behind_are_stopped(search: Search) -> None:
    for _ in range(6):
        search.study.add_trial(
            create_trial(
                params={
                    "rank": 1,
                    "scaling": 1,
                    "target_modules": "query,value",
                    "learning_rate": 1e-3,
                    "lora_dropout": 0.0,
                    "epochs": 2,
                },
                distributions=DISTRIBUTIONS,
                value=1.5,
                intermediate_values={1: 1.5, 2: 1.5},
                user_attrs={"metrics": {}},
            )
        )
    search.study.enqueue_trial({"epochs": 2, "rank": 1})
    stopped = search.try_one(lambda _state: None)
    assert stopped.state == TrialState.PRUNED and list(stopped.intermediate_values) == [1, 2]
    assert not (search.folder / "trials" / stopped.user_attrs["folder"]).exists()


def test_a_trial_that_cannot_be_trained_fails_alone(tiny_base: Path, tmp_path: Path) -> None:
    recipe = Recipe(base_model=str(tiny_base), precision="fp32").checked(PROBLEM)
    space = Space([1], ["nosuch"], (1, 1))
    with opened(PROBLEM, "made/up", recipe, space, tmp_path, "none") as search:
        assert search.try_one(lambda _state: None).state == TrialState.FAIL
        assert len(search.ended) == 1 and "Error: No modules were targeted" in search.ended[0].user_attrs["why"]
        with pytest.raises(DataError, match=r"no trial of 1 has a result: .*Error: No modules were targeted"):
            tune.keep_best(search)


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
