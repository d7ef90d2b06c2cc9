"""Search for the recipe of the best adapter on any text data, and write its bundle.

    quickchange tune DATA --trials 20 --output runs/tune

Rank, alpha, target modules, learning rate, dropout and epochs are chosen by what earlier trials gave; trials that fall behind
are stopped. The same command goes on where it stopped; OUTPUT/best is the bundle of the best trial.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from training.data import DataError, load_text_data
from training.data_flags import Data, LabelColumn, Labels, LabelSeparator, ProblemType, SkipBad, TextColumn, read_options
from training.data_types import AUTO
from training.recipe_flags import BaseModel, ClassWeights, MaxLength, Precision
from training.report import shown
from training.study_grid import whole_numbers
from training.terminal import console, one_line_errors
from training.text_model import Recipe
from training.train_text_adapter import STOPPED, source_name
from training.tune_report import COLUMNS, report_of, row_of
from training.tune_search import BUNDLE, FOLDER, TRIALS, Search, Space, opened

BEST = "best"
RANKS, TARGETS = "1,2,4,8,16,32,64", ["query,value", "all-linear"]
DEFAULTS = Recipe()


def carry_on(search: Search, trials: int, timeout: float | None) -> bool:
    """Carry out trials until ``trials`` have ended or ``timeout`` seconds have passed; whether an interrupt cut that short."""
    began = time.monotonic()
    with Progress(console=console) as progress:
        whole = progress.add_task("trials", total=trials, completed=len(search.ended))
        steps = progress.add_task("")

        def watch(state: Mapping[str, float]) -> None:
            progress.update(steps, total=state["steps"], completed=state["step"], description=f"loss {state['loss']:.3f}")

        try:
            while len(search.ended) < trials and (timeout is None or time.monotonic() - began < timeout):
                cells = row_of(search, search.try_one(watch))
                line = ", ".join(f"{name} {shown(cell)}" for name, cell in zip(COLUMNS, cells, strict=True) if cell is not None)
                progress.console.print(escape(line), soft_wrap=True)
                progress.update(whole, completed=len(search.ended))
        except KeyboardInterrupt:
            return True
    return False


def keep_best(search: Search) -> Path:
    """Put the best trial's bundle into OUTPUT/best; raises :class:`DataError` when no trial has one."""
    if not search.complete:
        why = "; ".join(dict.fromkeys(trial.user_attrs.get("why", "stopped early") for trial in search.ended)) or "none ended"
        raise DataError(f"no trial of {len(search.ended)} has a result: {why}")
    best, fresh = search.folder / BEST, search.folder / f".{BEST}"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(search.folder / TRIALS / search.study.best_trial.user_attrs[FOLDER] / BUNDLE, fresh)
    shutil.rmtree(best, ignore_errors=True)
    fresh.rename(best)
    return best


def main(
    data: Data,
    output: Annotated[Path, typer.Option(help="folder of the trials, the report and the best bundle")],
    trials: Annotated[int, typer.Option(min=1, help="trials in all, those of earlier calls counted")] = 20,
    timeout: Annotated[float | None, typer.Option(min=0, help="seconds after which no new trial begins")] = None,
    base_model: BaseModel = DEFAULTS.base_model,
    rank: Annotated[str, typer.Option(help="ranks to choose from, with commas")] = RANKS,
    targets: Annotated[list[str] | None, typer.Option(help="all-linear, or module names with commas; repeat for more")] = None,
    epochs: Annotated[str, typer.Option(help="fewest and most epochs")] = "2,8",
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    class_weights: ClassWeights = DEFAULTS.class_weights,
    max_length: MaxLength = DEFAULTS.max_length,
    precision: Precision = DEFAULTS.precision,
    select: Annotated[str, typer.Option(help="the validation figure that is sought")] = DEFAULTS.select,
    pruner: Annotated[str, typer.Option(help="what stops trials that fall behind: median, hyperband or none")] = "median",
    seed: Annotated[int, typer.Option(min=0)] = DEFAULTS.seed,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    problem_type: ProblemType = AUTO,
    label_separator: LabelSeparator = "|",
    labels: Labels = None,
    skip_bad: SkipBad = False,
) -> None:
    """Search for a recipe, and write the best trial's bundle to OUTPUT/best beside report.md, report.html and report.json."""
    common = Recipe(
        base_model=base_model, batch_size=batch_size, class_weights=class_weights, max_length=max_length,
        precision=precision, select=select, seed=seed,
    )  # fmt: skip
    with one_line_errors():
        bounds = whole_numbers("--epochs", epochs)
        if not 1 <= bounds[0] <= bounds[-1]:
            raise DataError(f"--epochs {epochs}: accepted: the fewest and the most, such as 2,8")
        space = Space(whole_numbers("--rank", rank), targets or TARGETS, (bounds[0], bounds[-1]))
        options = read_options(text_column, label_column, problem_type, label_separator, labels, skip_bad)
        loaded = load_text_data(data, options, seed)
        with opened(loaded, source_name(Path(data)), common.checked(loaded), space, output, pruner) as search:
            stopped = carry_on(search, trials, timeout)
            best = keep_best(search)
            report_of(search).write(output)
            _print(search)
    console.print(f"[green]{best}[/]: the best of {len(search.ended)} trials; {output / 'report.html'} shows all of them")
    if stopped:
        console.print("[yellow]stopped before all trials were done; the same command goes on[/]")
        raise typer.Exit(STOPPED)


def _print(search: Search) -> None:
    table = Table(*COLUMNS)
    for trial in search.ended:
        table.add_row(*(escape(shown(cell)) for cell in row_of(search, trial)))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
