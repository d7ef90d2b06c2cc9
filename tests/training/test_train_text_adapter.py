"""Training on a small problem: it learns, keeps its best epoch, and PEFT and the server read what it writes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
from typer import Typer
from typer.testing import CliRunner

from service.store.bundle import read_bundle
from training import evaluate, publish, train_text_adapter
from training.bundles import write_bundle
from training.data import Split, TextData
from training.evaluate import evaluate_text
from training.text_model import Recipe, batches

WORDS = {"bad": ["awful", "terrible", "sad"], "good": ["great", "lovely", "happy"]}


def problem(rows: int = 160) -> TextData:
    """A data set in which one word tells the label."""
    pick = random.Random(0)
    labels = [i % 2 for i in range(rows)]
    texts = [" ".join(pick.choices(WORDS[("bad", "good")[label]], k=6)) for label in labels]
    return TextData(("bad", "good"), {"train": Split(texts[:120], labels[:120]), "validation": Split(texts[120:], labels[120:])})


def recipe(base: Path, **changes: Any) -> Recipe:
    chosen: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", **changes}
    return Recipe(base_model=str(base), **chosen)


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
