"""Training on a small problem: it learns, keeps its best epoch, and PEFT and the server read what it writes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
from typer import Typer
from typer.testing import CliRunner

from service.store.bundle import read_bundle
from tests.training.words import as_csv, problem, recipe
from training import evaluate, publish, train_text_adapter
from training.bundles import write_bundle
from training.evaluate import evaluate_text
from training.run_state import CHECKPOINT
from training.text_model import batches


@pytest.fixture(scope="module")
def folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "words"
    write_bundle(train_text_adapter.train(problem(), recipe(tiny_base), "words", "made/up"), out)
    return out


def test_it_learns_and_records_how(folder: Path) -> None:
    manifest = read_bundle(folder).manifest
    assert manifest.metrics["validation"]["accuracy"] >= 0.9
    curve = manifest.recipe["curve"]
    assert [point["epoch"] for point in curve] == [1, 2, 3]
    assert max(point["accuracy"] for point in curve) == pytest.approx(manifest.metrics["validation"]["accuracy"], abs=0.03)
    assert {"seed", "r", "lora_alpha", "learning_rate", "precision", "data", "libraries", "duration_seconds"} <= set(
        manifest.recipe
    )
    assert manifest.recipe["data"]["digest"].startswith("sha256:")


def test_the_card_says_data_metrics_and_limits(folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    assert all(
        part in card
        for part in ("## Data", "## Metrics", "## Recipe", "## What it must not be used for", "macro_recall", "made/up")
    )


def test_peft_reads_the_folder_and_agrees_with_the_serving_engine(folder: Path, tiny_base: Path) -> None:
    bundle, data = read_bundle(folder), problem()
    served = evaluate_text(bundle, data.splits["validation"], data.labels, str(tiny_base))
    assert served == bundle.manifest.metrics["validation"]
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=2)
    assert isinstance(PeftModel.from_pretrained(plain, folder), PeftModel)


def test_weights_are_stored_in_half_precision(folder: Path) -> None:
    assert {tensor.dtype for tensor in read_bundle(folder).tensors.values()} == {torch.float16}


def test_the_same_seed_gives_the_same_weights(tiny_base: Path) -> None:
    digests = [
        train_text_adapter.train(problem(), recipe(tiny_base, epochs=1, seed=seed), "w", "made/up").manifest.digest
        for seed in (5, 5, 6)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_batches_hold_every_row_once_and_rows_of_like_length() -> None:
    rows = [[0] * (1 + i % 17) for i in range(100)]
    for shuffle in (None, random.Random(0)):
        chunks = list(batches(rows, 8, shuffle))
        assert sorted(i for chunk in chunks for i in chunk) == list(range(100))
        assert max(max(len(rows[i]) for i in chunk) - min(len(rows[i]) for i in chunk) for chunk in chunks) <= 3


def test_the_scripts_say_in_one_line_what_is_wrong(tmp_path: Path, folder: Path) -> None:
    cases: list[tuple[Callable[..., None], list[str], str]] = [
        (
            train_text_adapter.main,
            ["nowhere.csv", "--name", "x", "--output", str(tmp_path)],
            "nowhere.csv: no such file or folder",
        ),
        (evaluate.main, [str(tmp_path), "nowhere.csv"], "no adapter_config.json in the bundle"),
        (publish.main, [str(folder), "--adapters-dir", str(tmp_path / "a"), "--name", "A B"], "adapter name 'A B' is not valid"),
        (publish.main, [str(folder), "--adapters-dir", str(tmp_path / "a")], "it was trained on"),
    ]
    for command, arguments, says in cases:
        app = Typer()
        app.command()(command)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1, result.output
        assert says in result.output.replace("\n", " ") and "Traceback" not in result.output


def test_publish_puts_a_checked_bundle_into_the_folder(tmp_path: Path, tiny_base: Path, folder: Path) -> None:
    app = Typer()
    app.command()(publish.main)
    arguments = [str(folder), "--adapters-dir", str(tmp_path), "--base-model", str(tiny_base), "--alias", "live"]
    assert "words:1 published" in CliRunner().invoke(app, arguments).output
    assert "words:1 was there already" in CliRunner().invoke(app, arguments).output
    assert read_bundle(tmp_path / "words/1").weights == read_bundle(folder).weights


def arguments(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    """Arguments of a short run in float32 on the tiny base."""
    same = "--name words --epochs 8 --batch-size 8 --learning-rate 3e-3 --precision fp32 --checkpoint-every 5 --lora-dropout 0.1"
    return [str(data), "--base-model", str(base), "--output", str(output), *same.split(), *more]


def environment() -> dict[str, str]:
    """This process's, with the threads that it computes on, since more of them may add up in another order."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(Path(__file__).parents[2])}


def when_newer(file: Path, than: int, act: Callable[[], None]) -> None:
    """Act as soon as the file is there and newer, in a thread of its own."""

    def wait() -> None:
        while not (file.is_file() and file.stat().st_mtime_ns > than):
            time.sleep(0.001)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_a_run_that_was_stopped_and_then_killed_ends_with_the_same_bytes(tmp_path: Path, tiny_base: Path) -> None:
    data, cut, checkpoint = as_csv(problem(), tmp_path / "words.csv"), tmp_path / "cut", tmp_path / ".state/cut" / CHECKPOINT
    app = Typer()
    app.command()(train_text_adapter.main)
    when_newer(checkpoint, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = CliRunner().invoke(app, arguments(tiny_base, data, cut))
    assert stopped.exit_code == 130 and "the same command goes on from there" in stopped.output.replace("\n", " ")
    command = [sys.executable, "-m", "training.train_text_adapter", *arguments(tiny_base, data, cut)]
    written = checkpoint.stat().st_mtime_ns
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment()) as run:
        when_newer(checkpoint, written, run.kill)
    assert run.returncode == -signal.SIGKILL
    assert checkpoint.is_file() and not cut.exists()
    for name, says in (("cut", "going on after step"), ("whole", "epoch 1: ")):
        result = CliRunner().invoke(app, arguments(tiny_base, data, tmp_path / name))
        assert result.exit_code == 0 and says in result.output, result.output
    assert (cut / "adapter_model.safetensors").read_bytes() == (tmp_path / "whole/adapter_model.safetensors").read_bytes()
    assert not checkpoint.exists()


def test_two_processes_do_together_what_one_would(tmp_path: Path, tiny_base: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))  # without dropout, which each process draws for itself
    config = json.loads((base / "config.json").read_text("utf-8"))
    (base / "config.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}), "utf-8"
    )
    data = as_csv(problem(61), tmp_path / "words.csv")  # no whole number of batches, and an odd one at the end
    same = arguments(base, data, tmp_path / "one", "--epochs", "3", "--lora-dropout", "0", "--batch-size", "6")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", str(port)]
    command = [sys.executable, *launch, "-m", "training.train_text_adapter", *same, "--output", str(tmp_path / "two")]
    done = subprocess.run(
        command, env={**environment(), "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1: ") == 1 and done.stdout.count("validation: ") == 1
    app = Typer()
    app.command()(train_text_adapter.main)
    assert CliRunner().invoke(app, same).exit_code == 0
    one, two = (read_bundle(tmp_path / name) for name in ("one", "two"))
    assert one.manifest.metrics == two.manifest.metrics
    for name, tensor in one.tensors.items():
        assert torch.allclose(tensor.float(), two.tensors[name].float(), rtol=0.02, atol=2e-3), name


def test_the_options_that_do_not_go_together_are_said_in_one_line(tmp_path: Path, tiny_base: Path) -> None:
    data = str(as_csv(problem(40), tmp_path / "words.csv"))
    app = Typer()
    app.command()(train_text_adapter.main)
    for options, says in (
        (["--method", "full", "--output", str(tmp_path / "a")], "name a folder for it by --save-full"),
        (["--save-full", str(tmp_path / "a")], "name a folder for it by --output"),
        (["--output", str(tmp_path / "a"), "--report-to", "tensorboard,mlflow"], "mlflow is not installed"),
    ):
        result = CliRunner().invoke(app, [data, "--name", "x", "--base-model", str(tiny_base), *options])
        assert result.exit_code == 1 and says in result.output.replace("\n", " "), result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.csv"]


def test_few_rows_get_more_epochs_and_a_warning_where_the_steps_are_few(tmp_path: Path, tiny_base: Path) -> None:
    data = str(as_csv(problem(40), tmp_path / "words.csv"))
    app = Typer()
    app.command()(train_text_adapter.main)
    same = [data, "--name", "x", "--base-model", str(tiny_base), "--batch-size", "8", "--output", str(tmp_path / "out")]
    usual = CliRunner().invoke(app, same)
    assert "60 epochs, 300 steps of the optimizer" in usual.output
    manifest = read_bundle(tmp_path / "out").manifest
    assert manifest.recipe["epochs"] == 60 and manifest.metrics["validation"]["accuracy"] == 1
    assert "only 5 steps of the optimizer in 1 epochs" in CliRunner().invoke(app, [*same, "--epochs", "1"]).output.replace(
        "\n", " "
    )
