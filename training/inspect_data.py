"""Look text data over before training on it.

    quickchange inspect mydata.csv

Rows, classes, lengths against the truncation limit, duplicates, contradictions and rows that cannot be used; never a text.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from service.errors import QuickchangeError
from service.models.sources import locate
from training.data import DataError, read_text_data
from training.data_flags import Data, LabelColumn, Labels, LabelSeparator, ProblemType, TextColumn, read_options
from training.data_report import DataReport, report_on
from training.data_types import AUTO, ReadOptions

console, errors = Console(highlight=False), Console(stderr=True, highlight=False)


def inspect(source: str, options: ReadOptions, base_model: str, max_length: int) -> DataReport:
    """The report on ``source`` as it is, for the tokenizer of ``base_model``; rows that cannot be used are in it."""
    from transformers import AutoTokenizer

    data = read_text_data(source, options)
    if not data.splits:
        raise DataError(f"{source}: no split named train, val, validation, dev or test")
    return report_on(data, AutoTokenizer.from_pretrained(locate(base_model, "--base-model")), max_length)


def main(
    data: Data,
    base_model: Annotated[str, typer.Option(help="base model whose tokenizer counts: minilm, a folder, or a hub id")] = "minilm",
    max_length: Annotated[int, typer.Option(min=2, help="tokens that training will keep of a text")] = 128,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    problem_type: ProblemType = AUTO,
    label_separator: LabelSeparator = "|",
    labels: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, and nothing else")] = False,
) -> None:
    """Report rows, classes, lengths, duplicates, label conflicts and unusable rows of DATA, without showing a text."""
    options = read_options(text_column, label_column, problem_type, label_separator, labels, skip_bad=True)
    try:
        with errors.status(f"reading {escape(data)} …"):
            report = inspect(data, options, base_model, max_length)
    except (DataError, QuickchangeError) as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        console.print(report.as_json(), soft_wrap=True, markup=False, emoji=False)
    else:
        console.print(report.table())


if __name__ == "__main__":
    typer.run(main)
