"""What a lower precision of the base model costs the shipped adapters, on the data that chose their weights.

    python -m training.quality ../shared/data --dtype bf16

DATA holds TweetEval's tasks under ``tweeteval/``. Each adapter's validation split is labelled in float32 and in the other
precision; the command fails where accuracy falls or labels differ by more than the bounds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.errors import QuickchangeError
from service.models.linear import DTYPES, FAITHFUL, computes_in
from service.store.registry import Registry
from service.tasks.standalone import CPU, text_task
from training.data import DataError, load_text_data
from training.evaluate import predict
from training.train_all import ADAPTERS, SHIPPED

LOST, EQUAL = 0.3, 99.0  # points of accuracy at most, per cent of labels at least
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Quality:
    """One adapter's accuracy in float32 and in the other precision, and how many labels are the same, all in per cent."""

    adapter: str
    rows: int
    fp32: float
    other: float
    equal: float

    @property
    def kept(self) -> bool:
        """Whether both bounds hold."""
        return self.fp32 - self.other <= LOST and self.equal >= EQUAL


def compare(adapter: str, true: Sequence[str], fp32: Sequence[str], other: Sequence[str]) -> Quality:
    """The row of an adapter, from the true labels and those given in either precision."""

    def share(these: Sequence[str], those: Sequence[str]) -> float:
        return round(100 * sum(a == b for a, b in zip(these, those, strict=True)) / len(these), 2)

    return Quality(adapter, len(true), share(true, fp32), share(true, other), share(fp32, other))


def main(
    data: Annotated[Path, typer.Argument(help="folder with tweeteval/")],
    dtype: Annotated[str, typer.Option(help=f"precision to compare with fp32: {', '.join(DTYPES)}")] = FAITHFUL[-1],
    adapters: Annotated[Path, typer.Option(help="folder of adapters with the shipped ones live")] = Path("adapters"),
    base_model: Annotated[str, typer.Option(help="base model they belong to")] = "minilm",
    only: Annotated[list[str] | None, typer.Option(help="shipped adapters to compare; repeat for more")] = None,
    output: Annotated[Path, typer.Option(help="file for the figures as JSON")] = Path("reports/quality.json"),
) -> None:
    """Print and write what each shipped adapter keeps; exit with 1 where a bound does not hold."""
    try:
        rows = _measure(data, dtype, adapters, base_model, only or list(ADAPTERS))
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(2) from None
    table = Table("adapter", "rows", "fp32 %", f"{dtype} %", f"equal labels, ≥ {EQUAL:g} %", f"kept, ≤ {LOST:g} points lost")
    for row in rows:
        figures = (f"{row.fp32:.2f}", f"{row.other:.2f}", f"{row.equal:.2f}")
        table.add_row(row.adapter, str(row.rows), *figures, "yes" if row.kept else "[red]no[/]")
    console.print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"dtype": dtype, "adapters": [asdict(row) for row in rows]}, indent=2) + "\n", "utf-8")
    raise typer.Exit(0 if all(row.kept for row in rows) else 1)


def _measure(data: Path, dtype: str, adapters: Path, base_model: str, names: Sequence[str]) -> list[Quality]:
    if unknown := sorted(set(names) - set(ADAPTERS)):
        raise DataError(f"--only {unknown[0]}: not a shipped text adapter; accepted: {', '.join(ADAPTERS)}")
    other = next((known for known in DTYPES if known == dtype), None)
    if other is None or not computes_in(other, CPU):
        accepted = ", ".join(known for known in DTYPES if computes_in(known, CPU))
        raise DataError(f"--dtype {dtype}: not a precision that this machine has instructions for; accepted: {accepted}")
    registry = Registry.open(adapters)
    exact, lower = text_task(base_model, registry), text_task(base_model, registry, other)
    rows = []
    for name in names:
        shipped = ADAPTERS[name]
        loaded = load_text_data(str(data / "tweeteval" / shipped.folder), SHIPPED, shipped.recipe.seed)
        split = loaded.splits["validation"]
        console.print(f"{name}: {len(split)} texts …")
        true = [loaded.labels[label] for label in split.labels]
        rows.append(compare(name, true, predict(exact, name, split.texts), predict(lower, name, split.texts)))
    return rows


if __name__ == "__main__":
    typer.run(main)
