"""Score a text adapter's bundle on labelled data, through the engine that serves it.

    python -m training.evaluate adapters/irony/1 DATA --split test

DATA is whatever train_text_adapter reads. For a VQA bundle, DATA is a folder as train_vqa_head reads it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from service.errors import QuickchangeError
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, read_bundle
from service.store.registry import Registry
from service.tasks.standalone import text_task
from service.tasks.text_classification import Classification, TextClassification, TextRequest
from training.data import DataError, ReadOptions, Split, load_text_data
from training.metrics import classification_metrics

T = TypeVar("T")
BATCH = 32
console = Console(highlight=False)


def evaluate_text(bundle: Bundle, split: Split, labels: Sequence[str], base_model: str) -> dict[str, float]:
    """Accuracy, macro-F1 and macro-recall of the bundle on ``split``, computed as the server computes.

    Raises :class:`DataError` when the data has labels that the adapter does not know.
    """
    unknown = sorted(set(labels) - set(bundle.manifest.labels))
    if unknown:
        raise DataError(f"label {unknown[0]!r} of the data is not the adapter's; it has {', '.join(bundle.manifest.labels)}")
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(Path(folder))
        registry.set_alias("scored", "live", Target.at(registry.publish("scored", bundle)[0].version))
        predicted = predict(text_task(base_model, registry), "scored", split.texts)
    index = {label: i for i, label in enumerate(bundle.manifest.labels)}
    true = [index[labels[i]] for i in split.labels]
    return classification_metrics(true, [index[label] for label in predicted], len(index))


def predict(task: TextClassification, adapter: str, texts: Sequence[str]) -> list[str]:
    """The label that an adapter gives to each text, computed as the server computes."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    predicted = [""] * len(texts)
    for start in track(range(0, len(order), BATCH), "scoring", console=console, transient=True):
        rows = order[start : start + BATCH]
        items = task.prepare(TextRequest([texts[i] for i in rows], [adapter]))
        for row, output in zip(rows, task.forward(task.collate(items)), strict=True):
            if not isinstance(output, Classification):
                raise output
            predicted[row] = output.label
    return predicted


def main(
    folder: Annotated[Path, typer.Argument(help="a bundle's folder")],
    data: Annotated[str, typer.Argument(help="TweetEval folder, CSV, TSV, JSONL or Parquet file, folder of splits, or hub name")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "validation",
    base_model: Annotated[str, typer.Option(help="base model to score it on")] = "minilm",
    text_column: Annotated[str | None, typer.Option(help="column with the text")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the label")] = None,
) -> None:
    """Print the figures of a bundle on one split of DATA."""
    try:
        bundle = read_bundle(folder)
        if bundle.manifest.task != TEXT_CLASSIFICATION:
            raise DataError(f"{folder} answers {bundle.manifest.task}; this script scores {TEXT_CLASSIFICATION}")
        loaded = load_text_data(data, ReadOptions(text_column, label_column))
        if split not in loaded.splits:
            raise DataError(f"{data}: no split {split!r}; it has {', '.join(loaded.splits)}")
        metrics = evaluate_text(bundle, loaded.splits[split], loaded.labels, base_model)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    table = Table("figure", f"{split} ({len(loaded.splits[split])})", title=f"{bundle.manifest.name or folder.name}")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
