"""``make chaos``: every fault that the lifecycle must survive, tried at length, and what was lost.

python -m tests.chaos --only kills,disk --json chaos.json
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client

from transformers.utils import logging as transformers_logging

from loadtest.report import console
from tests.chaos.parts import PARTS, Part
from tests.chaos.rows import Row


def main(
    only: Annotated[str, typer.Option(help=f"some of {', '.join(PARTS)}")] = "",
    report: Annotated[Path | None, typer.Option("--json", help="a file for the table")] = None,
) -> None:
    """Try the faults and print a table of them; exit code 1 when anything was lost."""
    chosen = only.split(",") if only else list(PARTS)
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise typer.BadParameter(f"{', '.join(unknown)}; accepted: {', '.join(PARTS)}")
    started = time.monotonic()
    rows = run({name: PARTS[name] for name in chosen})
    console.print(table(rows))
    console.print(f"{sum(row.tried for row in rows):,} tried in {time.monotonic() - started:.0f} s")
    if report is not None:
        report.write_text(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n", "utf-8")
    raise typer.Exit(int(any(row.lost for row in rows)))


def run(parts: Mapping[str, Part]) -> list[Row]:
    """The rows of all these parts; one that breaks off is lost, and the others go on."""
    rows = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(parts))

        def say(text: str) -> None:
            progress.update(bar, description=text)
            if not console.is_terminal:
                console.print(f"… {text}", soft_wrap=True)

        for name, part in parts.items():
            say(name)
            try:
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                    rows += part(Path(scratch), say)
            except Exception as error:  # the table is to tell of it
                rows.append(Row(name, 1, 1, f"broke off: {type(error).__name__}: {error}"))
            progress.advance(bar)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    made = Table("fault", "tried", "lost", "what happened")
    for column in made.columns[1:3]:
        column.justify = "right"
    for row in rows:
        made.add_row(row.fault, f"{row.tried:,}", f"{row.lost:,}", row.detail, style="red" if row.lost else "")
    return made


if __name__ == "__main__":
    transformers_logging.set_verbosity_error()  # that PEFT is given models with new heads is meant
    transformers_logging.disable_progress_bar()
    warnings.simplefilter("ignore")  # what the driver and PEFT have to say is not about the faults
    logging.disable(logging.CRITICAL)  # nor is what the killed have left in the log
    typer.run(main)
