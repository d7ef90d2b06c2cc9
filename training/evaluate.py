"""Score any adapter on labelled data: a bundle, a stored version, or one that is live on a server.

    python -m training.evaluate adapters/irony/1 DATA --split test
    python -m training.evaluate irony@live DATA --server http://127.0.0.1:8000

DATA is whatever train_text_adapter reads; for a VQA adapter, whatever train_vqa_head reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from service.store.bundle import Bundle
from service.tasks.text_classification import TextClassification
from training.anywhere import (
    AdaptersDir,
    ApiKey,
    BaseModel,
    ImageEncoderName,
    Places,
    SentenceEncoderName,
    ServerUrl,
    classify,
    opened,
    published,
)
from training.data import ReadOptions, Split, TextData
from training.data_flags import LabelColumn, LabelSeparator, SkipBad, TextColumn, read_options
from training.findings import as_json, images, tables
from training.report import Report, interval
from training.scored import Scored
from training.scoring import BATCH, load_rows, score, text_rows
from training.terminal import console, one_line_errors, print_json, progress, show

PLACES, READ = Places(), ReadOptions()
CAPTIONS = {"confusion.png": "True against given labels", "reliability.png": "Reliability"}
Data = Annotated[str, typer.Argument(help="what quickchange train reads, or for a VQA adapter what quickchange train-vqa reads")]
SplitName = Annotated[str, typer.Option("--split", help="train, validation, test, or all rows")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="of the held-out tenth, where the data has no validation split")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, and nothing else")]
ReportFolder = Annotated[Path | None, typer.Option("--report", help="folder for a report with plots")]


def evaluate_text(bundle: Bundle, split: Split, labels: Sequence[str], base_model: str) -> dict[str, float]:
    """The figures of the bundle on ``split``, whose targets are places in ``labels``, computed as the server computes.

    Raises :class:`DataError` when the data has labels that the adapter does not know.
    """
    data = TextData(tuple(labels), {}, bundle.manifest.problem_type)
    with published(bundle, bundle.manifest.name or "the bundle", Places(base_model=base_model)) as adapter:
        return score(adapter, text_rows(data, split), console=progress).figures


def predict(task: TextClassification, adapter: str, texts: Sequence[str]) -> list[str]:
    """The label that an adapter gives to each text, computed as the server computes."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    predicted = [""] * len(texts)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        for row, answer in zip(rows, classify(task, adapter, [texts[i] for i in rows]), strict=True):
            predicted[row] = answer.label
    return predicted


def report_of(title: str, scored: Scored, facts: dict[str, Any]) -> Report:
    """A report about scored rows."""
    report = Report(title, figures={**facts, **as_json(scored)})
    report.text(line(scored))
    for name, png in images(scored).items():
        report.plot(png, CAPTIONS[name])
    for table in tables(scored):
        report.table(table.columns, table.rows, table.title)
    return report


def line(scored: Scored) -> str:
    """The headline figure with its interval, in words."""
    low, high = scored.intervals[scored.headline]
    found = scored.figures[scored.headline]
    return f"{scored.headline} {found:.4f} on {len(scored):,} rows, 95 % interval {interval(low, high, 4)}"


def main(
    adapter: Annotated[str, typer.Argument(help="a bundle's folder, NAME, NAME:VERSION or NAME@ALIAS")],
    data: Data,
    split: SplitName = "validation",
    server: ServerUrl = None,
    key: ApiKey = None,
    adapters_dir: AdaptersDir = PLACES.adapters_dir,
    base_model: BaseModel = PLACES.base_model,
    image_encoder: ImageEncoderName = PLACES.image_encoder,
    sentence_encoder: SentenceEncoderName = PLACES.sentence_encoder,
    text_column: TextColumn = READ.text_column,
    label_column: LabelColumn = READ.label_column,
    label_separator: LabelSeparator = READ.label_separator,
    skip_bad: SkipBad = READ.skip_bad,
    seed: Seed = 0,
    as_json_: AsJson = False,
    report: ReportFolder = None,
) -> None:
    """Score ADAPTER on DATA: figures with 95 % intervals, calibration, labels, slices and the hardest rows.

    ADAPTER is a folder, or a selector in the local folder of adapters, or with --server one on that server.
    """
    options = read_options(text_column, label_column, label_separator=label_separator, skip_bad=skip_bad)
    places = Places(adapters_dir, server, key, base_model, image_encoder, sentence_encoder)
    with one_line_errors(), opened(adapter, places) as found:
        scored = score(found, load_rows(data, split, found.manifest, options, seed), console=progress)
        facts = {"adapter": found.name, "digest": found.manifest.digest, "data": Path(data).name, "split": split}
    if report is not None:
        report_of(f"{facts['adapter']} on {facts['data']}, {split}", scored, facts).write(report)
    if as_json_:
        print_json({**facts, **as_json(scored)})
        return
    for table in tables(scored):
        show(table)
    console.print(f"[green]{escape(str(facts['adapter']))}[/] on {escape(str(facts['data']))}, {split}: {line(scored)}")
    if report is not None:
        console.print(f"report in {escape(str(report))}")


if __name__ == "__main__":
    typer.run(main)
