"""The study on tiny bases: every variant in one report, what is done is kept, what fails is noted, what is wrong is one line."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from service.store.bundle import read_bundle
from tests.support.command import script
from tests.support.words import words_data, write_words
from training import study
from training.run_state import RunFailed
from training.study_grid import Variant
from training.study_run import Run, carry_out
from training.text_model import Recipe

QUICK = ("--epochs", "1", "--batch-size", "16", "--precision", "fp32", "--learning-rate", "3e-3", "--full-learning-rate", "3e-3")
BROKEN = "nosuch"
PROBLEM = words_data()


run = partial(script, study.main)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def command(data: Path, tiny_base: Path, tiny_roberta: Path) -> list[str]:
    bases = ["--base-model", str(tiny_base), "--base-model", str(tiny_roberta)]
    return [str(data), *bases, "--rank", "2", "--targets", "query,value", "--targets", BROKEN, *QUICK]


@pytest.fixture(scope="module")
def done(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of two bases, with target modules that neither has among the variants."""
    folder = tmp_path_factory.mktemp("study")
    code, output = run(*command, "--output", str(folder))
    assert code == 0, output
    return folder, output


def runs(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("*/seed-*/result.json"))


def test_every_variant_is_trained_with_every_seed(done: tuple[Path, str]) -> None:
    folder, _ = done
    assert len(runs(folder)) == 4
    figures = json.loads((folder / "report.json").read_text("utf-8"))["figures"]
    assert [variant["name"].split(" ", 1)[1] for variant in figures["variants"]] == ["full", "r=2 query,value"] * 2
    for variant in figures["variants"]:
        assert [result["seed"] for result in variant["runs"]] == [0]
        assert variant["accuracy"]["low"] <= variant["accuracy"]["mean"] <= variant["accuracy"]["high"]
        for result in variant["runs"]:
            assert 0 < result["trainable_parameters"] <= result["total_parameters"]
            assert result["peak_memory_bytes"] > 10**7 and result["seconds_per_epoch"] > 0 and result["curve"]
        assert variant["serving"]["p50_ms"] > 0 and variant["serving"]["texts_per_second"] > 0
    full, lora = figures["variants"][:2]
    assert lora["runs"][0]["trainable_parameters"] == 2 * 2 * 2 * 2 * 32 + 32 * 3 + 3
    assert full["runs"][0]["file_bytes"] > 20 * lora["runs"][0]["file_bytes"]
    assert (full["against_reference"] is None) != (lora["against_reference"] is None) or figures["reference"].endswith("full")


def test_each_run_leaves_weights_that_can_be_used_and_its_predictions(done: tuple[Path, str]) -> None:
    for folder in runs(done[0]):
        logits = load_file(folder / "predictions.safetensors")
        assert {name: tuple(tensor.shape) for name, tensor in logits.items()} == {"validation": (24, 3), "test": (24, 3)}
        if (folder / "adapter").is_dir():
            assert read_bundle(folder / "adapter").manifest.labels == ("bad", "good", "plain")
        else:
            assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in (folder / "model").iterdir()}
        assert not (folder / "training").exists()


def test_the_report_shows_what_was_found_and_what_failed(done: tuple[Path, str], tiny_base: Path) -> None:
    folder, output = done
    text = (folder / "report.md").read_text("utf-8")
    for section in (
        "What was found",
        "How good",
        "At what cost",
        "Size against accuracy",
        "Learning curves",
        "Confusion matrices",
    ):
        assert f"## {section}" in text
    assert text.count(f"r=2 {BROKEN}, seed 0 | ") == text.count("Error: ") == 2
    assert f"r=2 {BROKEN}, seed 0 failed: " in output.replace("\n", "")
    assert "the best LoRA on validation (r=2 query,value) is" in text and "Best on validation is **" in text
    assert str(tiny_base.parent) not in text + (folder / "report.json").read_text("utf-8")
    assert len(list((folder / "plots").iterdir())) >= 5


def test_what_is_done_is_not_done_again(done: tuple[Path, str], command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(done[0], folder)
    lost, *kept = runs(folder)
    before = [(path / "result.json").stat().st_mtime_ns for path in kept]
    was = json.loads((lost / "result.json").read_text("utf-8"))
    (lost / "result.json").unlink()
    code, output = run(*command, "--output", str(folder))
    assert code == 0, output
    assert [(path / "result.json").stat().st_mtime_ns for path in kept] == before
    assert json.loads((lost / "result.json").read_text("utf-8"))["metrics"] == was["metrics"]


def test_a_folder_of_other_runs_is_left_alone(done: tuple[Path, str], command: list[str]) -> None:
    code, output = run(*command, "--output", str(done[0]), "--epochs", "2")
    assert code == 1 and "holds a run with epochs 1, not 2: give the options of that study, or another --output" in output


@pytest.fixture
def one(tiny_base: Path, tmp_path: Path) -> Run:
    recipe = Recipe(base_model=str(tiny_base), target_modules="query,value", epochs=2, batch_size=16, precision="fp32")
    return Run(Variant("tiny", "sha256:1", recipe.checked(PROBLEM)), 3, tmp_path / "run")


def test_a_run_that_dies_fails_in_one_line(one: Run) -> None:
    one.claim(PROBLEM)

    def kill(_state: Mapping[str, float]) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(RunFailed, match="its process was ended by signal 9, as where memory runs out"):
        carry_out(one, PROBLEM, "made/up", kill)
    assert not one.is_done


def test_a_run_that_is_interrupted_goes_on_and_ends_as_if_it_had_not_been(one: Run, tmp_path: Path) -> None:
    whole, steps = Run(one.variant, one.seed, tmp_path / "whole"), []

    def interrupt(state: Mapping[str, float]) -> None:
        if state["step"] == 4:
            raise KeyboardInterrupt

    for run in (one, whole):
        run.claim(PROBLEM)
    with pytest.raises(KeyboardInterrupt):
        carry_out(one, PROBLEM, "made/up", interrupt)
    assert not one.is_done and list(one.folder.rglob("*.safetensors"))
    carry_out(one, PROBLEM, "made/up", lambda state: steps.append(state["step"]))
    carry_out(whole, PROBLEM, "made/up", lambda _state: None)
    assert steps == list(range(int(steps[0]), 7)) and steps[0] > 4
    assert all(torch.equal(one.logits()[split], logits) for split, logits in whole.logits().items())
    assert one.result()["curve"] == whole.result()["curve"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--method", "full,prefix"], "--method prefix: no such method; accepted: full, lora"),
        (["--rank", "8,x"], "--rank 8,x: accepted: whole numbers with commas"),
        (["--rank", "0"], "--rank 0: not a rank; accepted: whole numbers from 1"),
        (["--base-model", "./nowhere"], "./nowhere: no model there; expected a folder with config.json"),
        (["--reference", "the first"], "--reference the first: no such variant; there is minilm full, minilm r=8 query,value"),
        (["--text-column", "body"], "body"),
    ],
)
def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    code, output = run(str(data), "--output", str(tmp_path / "out"), *arguments)
    assert code == 1 and line in output and output.count("error:") == 1
    assert not (tmp_path / "out").exists()
