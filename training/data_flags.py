"""The options by which commands say how to read their data, and what they make together."""

from __future__ import annotations

from typing import Annotated

import typer

from training.data_types import AUTO, PROBLEM_TYPES, ReadOptions

DATA_HELP = "CSV, TSV, JSONL, JSON or Parquet file, folder with one per split, TweetEval folder, LABEL/*.txt, or hub name"

Data = Annotated[str, typer.Argument(help=DATA_HELP)]
TextColumn = Annotated[str | None, typer.Option(help="column with the text")]
LabelColumn = Annotated[str | None, typer.Option(help="column with the label, or several with commas")]
ProblemType = Annotated[str, typer.Option(help=f"{AUTO}, {', '.join(PROBLEM_TYPES)}")]
LabelSeparator = Annotated[str, typer.Option(help="what joins the labels of a multi-label cell")]
Labels = Annotated[str | None, typer.Option(help="the labels in their order, with commas; a row with another cannot be used")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="leave out rows that cannot be used instead of stopping")]


def read_options(
    text_column: str | None,
    label_column: str | None,
    problem_type: str = AUTO,
    label_separator: str = "|",
    labels: str | None = None,
    skip_bad: bool = False,
) -> ReadOptions:
    """How to read the data, from the options of a command."""
    names = tuple(name.strip() for name in labels.split(",")) if labels else None
    return ReadOptions(text_column, label_column, problem_type, label_separator, names, skip_bad)
