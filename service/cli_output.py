"""What the commands share: where they print, how they fail, and the options that name a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from service.errors import QuickchangeError
from service.settings import PREFIX

console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
EXIT_CODES = "Exit codes: 0 done; 1 refused or failed, and one line on stderr says why; 2 the command itself is wrong."

Server = Annotated[str, typer.Option("--server", envvar=f"{PREFIX}SERVER", help="address of the server")]
Key = Annotated[str | None, typer.Option("--key", envvar=f"{PREFIX}API_KEY", help="API key, where the server wants one")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, and nothing else")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line and exit code 1 for an error that somebody caused."""
    try:
        yield
    except QuickchangeError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def print_json(text: str) -> None:
    """Print a JSON document as it is, whatever the width of the terminal."""
    console.print(text, soft_wrap=True, markup=False, emoji=False)
