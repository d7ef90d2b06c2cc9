"""Train full fine-tuning and LoRA on the same data and seeds, and write one report of what each gives and costs.

    quickchange study DATA --base-model minilm --rank 1,8,64 --targets query,value --targets all-linear --output runs/study

Each run has a folder of its own in OUTPUT; one that is there is not run again, and one that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table as Shown

from training.data import DataError, TextData, load_text_data
from training.data_flags import Data, LabelColumn, Labels, LabelSeparator, ProblemType, SkipBad, TextColumn, read_options
from training.data_types import AUTO
from training.parameters import parameter_counts
from training.recipe_flags import ClassWeights, LoraDropout, MaxLength, Precision
from training.report import Report
from training.run_state import RunFailed
from training.serving_cost import Cost, adapter_costs, full_cost
from training.study_grid import Grid, Variant, whole_numbers
from training.study_report import report_of
from training.study_run import ADAPTER, MODEL, Run, carry_out, write_json
from training.study_table import Row, Table, tabulate
from training.terminal import console, one_line_errors
from training.text_model import FULL, LEARNING_RATES, Recipe
from training.train_text_adapter import STOPPED, source_name

SERVING, TIMED = "serving.json", 192  # texts
DEFAULTS = Recipe(epochs=6, lora_dropout=0.1, target_modules="query,value")


def train_all(runs: Sequence[Run], data: TextData, source: str) -> dict[str, str]:
    """Carry out the runs that are not done; the runs that failed, by name, with a line that says why."""
    failures: dict[str, str] = {}
    with Progress(console=console) as progress:
        whole = progress.add_task("runs", total=len(runs))
        steps = progress.add_task("")
        for run in runs:
            label = f"{run.variant.name}, seed {run.seed}"

            def watch(state: Mapping[str, float], label: str = label) -> None:
                shown = f"{label}: loss {state['loss']:.3f}"
                progress.update(steps, total=state["steps"], completed=state["step"], description=shown)

            try:
                if not run.is_done:
                    carry_out(run, data, source, watch)
                progress.console.print(_line(label, run))
            except RunFailed as error:
                failures[label] = str(error)
                progress.console.print(f"[yellow]{escape(label)} failed:[/] {escape(str(error))}", soft_wrap=True)
            progress.advance(whole)
    return failures


def _line(label: str, run: Run) -> str:
    metrics = run.result()["metrics"]["validation"]
    return f"{escape(label)}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row for each variant with at least one run that is done."""
    done: dict[Variant, list[Run]] = {}
    for run in runs:
        if run.is_done:
            done.setdefault(run.variant, []).append(run)
    return [Row(variant, [r.result() for r in those], [r.logits() for r in those]) for variant, those in done.items()]


def add_costs(rows: Sequence[Row], runs: Sequence[Run], texts: Sequence[str]) -> None:
    """Measure what each variant costs to serve, by its first run, unless that was measured before."""
    first = {row.variant: next(run.folder for run in runs if run.variant == row.variant and run.is_done) for row in rows}
    missing = [variant for variant, folder in first.items() if not (folder / SERVING).is_file()]
    found: dict[str, Cost] = {}
    for base in dict.fromkeys(variant.recipe.base_model for variant in missing):
        adapters = {v.name: first[v] / ADAPTER for v in missing if v.recipe.base_model == base and not v.is_full}
        found |= adapter_costs(base, adapters, texts) if adapters else {}
    for variant in missing:
        cost = full_cost(first[variant] / MODEL, texts, variant.recipe.max_length) if variant.is_full else found[variant.name]
        write_json(first[variant] / SERVING, asdict(cost))
    for row in rows:
        row.cost = Cost(**json.loads((first[row.variant] / SERVING).read_text("utf-8")))


def machine(rows: Sequence[Row]) -> str:
    """What the runs were computed on, in words."""
    recipe = rows[0].first["recipe"]
    return (
        f"{platform.machine()} with {os.cpu_count()} CPUs, device {recipe['device']}, {torch.get_num_threads()} threads, "
        f"trained in {recipe['precision']}, torch {torch.__version__}"
    )


def main(
    data: Data,
    output: Annotated[Path, typer.Option(help="folder of the runs and the report")],
    base_model: Annotated[list[str] | None, typer.Option(help="minilm, a folder, or a hub id; repeat for more")] = None,
    method: Annotated[str, typer.Option(help="full, lora, or both with a comma")] = "full,lora",
    rank: Annotated[str, typer.Option(help="LoRA ranks, with commas")] = "8",
    targets: Annotated[list[str] | None, typer.Option(help="all-linear, or module names with commas; repeat for more")] = None,
    seeds: Annotated[str, typer.Option(help="seeds, with commas")] = "0",
    scaling: Annotated[float, typer.Option(min=0, help="LoRA scaling, lora_alpha / r")] = 2.0,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0, help="of LoRA")] = DEFAULTS.learning_rate,
    full_learning_rate: Annotated[float, typer.Option(min=0, help="of full fine-tuning")] = LEARNING_RATES[FULL],
    lora_dropout: LoraDropout = DEFAULTS.lora_dropout,
    class_weights: ClassWeights = DEFAULTS.class_weights,
    max_length: MaxLength = DEFAULTS.max_length,
    precision: Precision = DEFAULTS.precision,
    select: Annotated[str, typer.Option(help="the validation figure that picks each run's epoch")] = DEFAULTS.select,
    reference: Annotated[str | None, typer.Option(help="variant to test against; else full fine-tuning, else the best")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    problem_type: ProblemType = AUTO,
    label_separator: LabelSeparator = "|",
    labels: Labels = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train every variant with every seed, and write report.md, report.html and report.json into OUTPUT."""
    common = Recipe(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora_dropout=lora_dropout,
        class_weights=class_weights, max_length=max_length, precision=precision, select=select,
    )  # fmt: skip
    with one_line_errors():
        ranks, numbers = whole_numbers("--rank", rank), whole_numbers("--seeds", seeds)
        options = read_options(text_column, label_column, problem_type, label_separator, labels, skip_bad)
        loaded = load_text_data(data, options)
        bases, modules = base_model or ["minilm"], targets or [DEFAULTS.target_modules]
        grid = Grid(bases, method.split(","), ranks, modules, full_learning_rate, scaling, common.checked(loaded))
        variants = grid.variants()
        if reference is not None and reference not in {variant.name for variant in variants}:
            raise DataError(f"--reference {reference}: no such variant; there is {', '.join(v.name for v in variants)}")
        table, stopped = study(variants, numbers, loaded, source_name(Path(data)), output, reference)
    _print(table)
    console.print(f"[green]{output / 'report.html'}[/]: {len(table.rows)} variants, {len(table.failures)} runs failed")
    if stopped:
        console.print("[yellow]stopped before all runs were done; the same command goes on[/]")
        raise typer.Exit(STOPPED)


def study(
    variants: Sequence[Variant], seeds: Sequence[int], data: TextData, source: str, output: Path, reference: str | None = None
) -> tuple[Table, bool]:
    """Carry out what is not done of every variant with every seed, and write the report; and whether an interrupt cut it short.

    Raises :class:`DataError` when not one run has a result, or OUTPUT holds runs of other recipes or data.
    """
    _print_plan(variants, seeds, data)
    runs = [Run(variant, seed, output / variant.folder / f"seed-{seed}") for seed in dict.fromkeys(seeds) for variant in variants]
    for run in runs:
        run.claim(data)
    stopped, failures = False, {}
    try:
        failures = train_all(runs, data, source)
    except KeyboardInterrupt:
        stopped = True
    rows = rows_of(runs)
    if not rows:
        why = "; the first: " + next(iter(failures.values())) if failures else ": stopped before the first was done"
        raise DataError(f"not one of {len(runs)} runs has a result{why}")
    with console.status("measuring what each costs to serve, and testing the differences …"):
        add_costs(rows, runs, data.splits["validation"].texts[:TIMED])
        present = reference if reference in {row.variant.name for row in rows} else None
        table = tabulate(data, rows, present, failures)
    report: Report = report_of(table, source, machine(rows))
    report.write(output)
    return table, stopped


def _print_plan(variants: Sequence[Variant], seeds: Sequence[int], data: TextData) -> None:
    shown = Shown("variant", "trainable", "total", title=f"{len(variants)} variants, {len(variants) * len(seeds)} runs")
    for variant in variants:
        try:
            counts = [f"{count:,}" for count in parameter_counts(variant.recipe, len(data.labels))]
        except ValueError:  # the run itself says what is wrong
            counts = ["–", "–"]
        shown.add_row(variant.name, *counts)
    console.print(shown)


def _print(table: Table) -> None:
    shown = Shown("variant", f"{table.split} {table.headline}", "95 %", "difference", "p", "trainable", "MB", "p50 ms")
    for row in table.rows:
        figure = row.figures[table.headline]
        shown.add_row(
            row.variant.name,
            f"{figure.mean:.4f}",
            f"{figure.low:.3f} to {figure.high:.3f}",
            f"{row.paired.difference:+.4f}" if row.paired else "reference",
            f"{row.corrected_p:.3f}" if row.corrected_p is not None else "",
            f"{row.first['trainable_parameters']:,}",
            f"{row.mean('file_bytes') / 1e6:.3g}",
            f"{row.cost.p50_ms:.1f}" if row.cost else "",
        )
    console.print(shown)


if __name__ == "__main__":
    typer.run(main)
