"""``quickchange doctor``: whether the server would start here, and what would slow it down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from service.cli_flags import with_flags
from service.cli_output import AsJson, console, errors, one_line_errors, print_json
from service.settings import load_settings

if TYPE_CHECKING:
    from service.doctor import Check

SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failure": "[red]✗[/]"}


@with_flags()
def doctor(as_json: AsJson = False, **flags: object) -> None:
    """Look at this machine as 'serve' with the same flags would find it; exit code 1 when that could not start."""
    from service.doctor import examine

    with one_line_errors(), errors.status("looking …"):
        found = list(examine(load_settings(**flags)))
    failed = any(check.state == "failure" for check in found)
    if as_json:
        print_json(json.dumps({"status": "failure" if failed else "ok", "checks": [asdict(check) for check in found]}))
    else:
        console.print(_table(found))
    raise typer.Exit(1 if failed else 0)


def _table(found: Sequence[Check]) -> Table:
    table = Table("", "what", "found")
    for check in found:
        table.add_row(SIGNS[check.state], check.what, escape(check.detail))
    return table
