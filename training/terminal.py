"""How the commands that score talk: tables on the terminal, progress and errors beside them on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.errors import QuickchangeError
from training.data import DataError
from training.report import Table as Sheet

console, progress = Console(highlight=False), Console(stderr=True, highlight=False)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line and exit code 1 for an error that somebody caused."""
    try:
        yield
    except (DataError, QuickchangeError) as error:
        progress.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def show(sheet: Sheet) -> None:
    """Print a table."""
    shown = Table(title=escape(sheet.title), title_justify="left")
    for column, is_numeric in zip(sheet.columns, sheet.numeric, strict=True):
        shown.add_column(escape(column), justify="right" if is_numeric else "left")
    for row in sheet.rows:
        shown.add_row(*map(escape, row))
    console.print(shown)


def print_json(document: Any) -> None:
    """Print a JSON document as it is, whatever the width of the terminal."""
    console.print(json.dumps(document, indent=2, ensure_ascii=False), soft_wrap=True, markup=False, emoji=False)
