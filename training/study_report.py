"""A study's report: what was found, then every table and plot behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from training.data_types import SINGLE
from training.plots import Point, confusion_matrix, learning_curves, size_against_accuracy
from training.report import Report
from training.study_findings import findings
from training.study_plots import by_rank
from training.study_table import Row, Table, given

SPLITS = ("train", "validation", "test")
MEGA = 1e6
MOST_SHOWN = 6  # variants with curves and a confusion matrix of their own


def report_of(table: Table, source: str, machine: str) -> Report:
    """The whole report of a study on the data called ``source``."""
    data, recipe = table.data, table.reference.variant.recipe
    report = Report(f"Full fine-tuning against LoRA on {source}")
    sizes = ", ".join(f"{len(data.splits[split]):,} {split}" for split in SPLITS if split in data.splits)
    seeds = sorted({result["seed"] for row in table.rows for result in row.results})
    report.text(
        f"{len(table.rows)} variants, seeds {', '.join(map(str, seeds))}; {sizes} rows, labels {', '.join(data.labels)}. "
        f"Every run takes the epoch that is best on validation, of {recipe.epochs} in batches of {recipe.batch_size}, and is "
        f"measured on the {table.split} split. Machine: {machine}."
    )
    report.heading("What was found")
    report.points(findings(table))
    _quality(report, table)
    _cost(report, table)
    _plots(report, table)
    if table.failures:
        report.heading("Runs that failed")
        report.table(["run", "why"], list(table.failures.items()))
    report.figures.update(_figures(table))
    return report


def _quality(report: Report, table: Table) -> None:
    report.heading("How good")
    report.text(
        "Mean ± standard deviation over seeds, and in brackets the 95 % bootstrap interval of the mean over the split's rows."
        f" The difference is in {table.headline} from **{table.reference.variant.name}**, by a paired bootstrap over the same "
        "rows, all seeds of a row together; p is two-sided, after Holm's correction for the number of variants."
    )
    names = [name.replace("_", "-") for name in table.names]
    columns = ["variant", "seeds", *names, "difference", "p"]
    report.table(columns, [_quality_row(table, row) for row in table.rows], f"On {table.split}")


def _quality_row(table: Table, row: Row) -> list[object]:
    cells = [f"{f.mean:.3f} ± {f.deviation:.3f} [{f.low:.3f}, {f.high:.3f}]" for f in row.figures.values()]
    name = f"**{row.variant.name}**" if row is table.best else row.variant.name
    if row.paired is None:
        return [name, len(row.results), *cells, "reference", None]
    p = row.corrected_p if row.corrected_p is not None else 1.0
    shown = "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 - as p-values are written
    difference = f"{row.paired.difference:+.3f} [{row.paired.low:+.3f}, {row.paired.high:+.3f}]"
    return [name, len(row.results), *cells, difference, f"**{shown}**" if row.differs else shown]


def _cost(report: Report, table: Table) -> None:
    report.heading("At what cost")
    report.text(
        "Time and memory are means over seeds. Each run has a process of its own, and memory is all of it, libraries too. "
        "Latency is from text to label in float32, without HTTP: an adapter through the server's own task, whose base model all "
        "adapters share, a full model by transformers."
    )
    columns = [
        "variant", "trainable", "total", "share %", "s/epoch", "peak MB", "file MB", "one text, p50 ms", "texts/s in 32s",
    ]  # fmt: skip
    report.table(columns, [_cost_row(row) for row in table.rows])


def _cost_row(row: Row) -> list[object]:
    trainable, total = row.first["trainable_parameters"], row.first["total_parameters"]
    return [
        row.variant.name,
        trainable,
        total,
        f"{100 * trainable / total:.2f}",
        f"{row.mean('seconds_per_epoch'):.1f}",
        round(row.mean("peak_memory_bytes") / MEGA),
        f"{row.mean('file_bytes') / MEGA:.3g}",
        f"{row.cost.p50_ms:.1f}" if row.cost else None,
        round(row.cost.texts_per_second) if row.cost else None,
    ]


def _plots(report: Report, table: Table) -> None:
    report.heading("Size against accuracy")
    points = [
        Point(_short(row), row.mean("file_bytes") / MEGA, f.mean, (f.low, f.high), _group(row))
        for row in table.rows
        for f in [row.figures[table.headline]]
    ]
    report.plot(size_against_accuracy(points), "Size against accuracy")
    series: dict[str, list[tuple[float, float, float]]] = {}
    for row in table.rows:
        if not row.variant.is_full:
            figure = row.figures[table.headline]
            series.setdefault(_group(row), []).append((row.variant.recipe.r, figure.mean, figure.deviation))
    levels = {row.variant.name: row.figures[table.headline].mean for row in table.rows if row.variant.is_full}
    if any(len(line) > 1 for line in series.values()):
        report.plot(by_rank(series, levels, table.headline), f"{table.headline.capitalize()} by rank")
    report.heading("Learning curves")
    chosen = representatives(table)
    for row in chosen:
        report.plot(learning_curves(row.first["curve"]), f"Learning curves of {row.variant.name}, seed {row.first['seed']}")
    if table.data.problem_type == SINGLE:
        report.heading("Confusion matrices")
        true = table.data.splits[table.split].labels
        for row in chosen:
            predicted = given(table.data, table.split, row)[:, 0].tolist()
            title = f"Confusion of {row.variant.name}, seed {row.first['seed']}"
            report.plot(confusion_matrix(true, predicted, table.data.labels), title)


def representatives(table: Table) -> list[Row]:
    """The rows that are shown at length: the best on validation of each group, the reference and the best first."""
    best: dict[str, Row] = {}
    for row in sorted(table.rows, key=lambda row: row.validation, reverse=True):
        best.setdefault(_group(row), row)
    chosen = [table.reference, table.best, *best.values()]
    return [row for place, row in enumerate(chosen) if row not in chosen[:place]][:MOST_SHOWN]


def _group(row: Row) -> str:
    return row.variant.name if row.variant.is_full else f"{row.variant.base} {row.variant.recipe.target_modules}"


def _short(row: Row) -> str:
    return "full" if row.variant.is_full else f"r={row.variant.recipe.r}"


def _figures(table: Table) -> dict[str, Any]:
    return {
        "split": table.split,
        "headline": table.headline,
        "data": table.data.digest,
        "reference": table.reference.variant.name,
        "best_by_validation": table.best.variant.name,
        "variants": [_row_figures(row) for row in table.rows],
        "failures": dict(table.failures),
    }


def _row_figures(row: Row) -> dict[str, Any]:
    results: Sequence[dict[str, Any]] = row.results
    return {
        "name": row.variant.name,
        "validation": row.validation,
        **{name: asdict(figure) for name, figure in row.figures.items()},
        "against_reference": asdict(row.paired) | {"holm_p_value": row.corrected_p} if row.paired else None,
        "serving": asdict(row.cost) if row.cost else None,
        "runs": results,
    }
