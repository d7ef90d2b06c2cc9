"""``make soak``: a hundred thousand requests for adapters that come and go, every answer checked, and no leak.

python -m tests.soak --requests 20000 --rounds 1000 --dtype bf16
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client

from transformers.utils import logging

from loadtest.report import console, progress
from service.models.linear import Dtype
from tests.soak.soak import WARM, Soaked, soak
from tests.support.bundles import save_tiny_base


def main(
    requests: Annotated[int, typer.Option(min=WARM, help="answers at least")] = 100_000,
    rounds: Annotated[int, typer.Option(min=WARM, help="versions at least that are published, and as many deleted")] = 10_000,
    dtype: Annotated[Dtype, typer.Option(help="what the server computes in")] = "fp32",
) -> None:
    """Run the traffic against a server of its own; exit code 1 when an answer was wrong or the server grew."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, progress() as say:
        base = save_tiny_base(Path(scratch) / "base")
        found = soak(base, Path(scratch), requests, rounds, say, dtype)
    console.print(_table(found, time.monotonic() - started))
    for fault in found.faults:
        console.print(f"fault: {fault}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(int(bool(found.faults)))


def _table(found: Soaked, seconds: float) -> Table:
    table, count, before, after = Table("what", "found"), found.count, found.before, found.after
    for what, text in {
        "answers, each checked": f"{count.answers:,}",
        "of them wrong": f"{count.wrong:,}",
        "other answers by status": ", ".join(f"{s}: {n:,}" for s, n in sorted(count.statuses.items()) if s != 200) or "none",
        "versions published, and deleted": f"{count.rounds:,}",
        "loads and evictions on the device": f"{found.loads:,} and {found.evictions:,}",
        "resident memory": f"{before.resident / 1e6:.1f} → {after.resident / 1e6:.1f} MB ({100 * found.growth:+.2f} %)",
        "descriptors": f"{len(before.descriptors)} → {len(after.descriptors)}",
        "threads": f"{before.threads} → {after.threads}",
        "seconds in all": f"{seconds:.0f}",
    }.items():
        table.add_row(what, text)
    return table


if __name__ == "__main__":
    logging.set_verbosity_error()  # that PEFT is given models with new heads is meant
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # PEFT still reads a property that transformers renamed
    typer.run(main)
