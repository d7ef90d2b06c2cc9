"""What the commands share: where they print, and how they fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from service.errors import QuickchangeError

console, errors = Console(highlight=False), Console(stderr=True, highlight=False)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line and exit code 1 for an error that somebody caused."""
    try:
        yield
    except QuickchangeError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
