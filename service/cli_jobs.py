"""``quickchange jobs …``: trainings by a running server, from the data's file to an adapter that answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.cli_adapters import rules
from service.cli_output import EXIT_CODES, AsJson, Key, Server, console, errors, one_line_errors, print_json
from service.client import Client
from service.client.training import END
from service.client.transport import LOCAL
from service.routes.training_views import JobList, JobView

app = typer.Typer(no_args_is_help=True, help="Trainings by a running server: submit, list, watch, cancel.", epilog=EXIT_CODES)
JobId = Annotated[str, typer.Argument(metavar="ID", help="the job, by the id that 'submit' and 'list' print")]


@app.command("submit")
def submit(
    data: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet file of labelled texts")],
    name: Annotated[str, typer.Option(help="adapter that a version is trained of")],
    alias: Annotated[str | None, typer.Option(help="alias to point at the version, such as live")] = None,
    require: Annotated[
        list[str] | None, typer.Option(metavar="METRIC>=ALIAS|NUMBER", help="what the alias requires, as in 'macro_f1>=live'")
    ] = None,
    gate: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=NUMBER", help="publish nothing below it, as in accuracy=0.8; repeat")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="of the training, as in epochs=5 or r=16; repeat for more")
    ] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="follow it to its end, as 'watch' does")] = False,
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Train a version of an adapter on the server; it is published, and the alias points at it, when it is done."""
    required, gates, options = rules(require or ()), _gates(gate or ()), _pairs("--option", option or ())
    with one_line_errors(), Client(server, key) as client:
        job = client.submit_job(data, name, options=options, alias=alias, require=required, gate=gates)
        if watch_it:
            _watch(client, job.id, as_json=as_json)
        elif as_json:
            print_json(job.model_dump_json())
        else:
            console.print(f"[green]{job.id}[/] {job.state}; 'quickchange jobs watch {job.id}' follows it", soft_wrap=True)


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="how many at most")] = 20,
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the training jobs, the newest first."""
    with one_line_errors(), Client(server, key) as client:
        found = [job for _, job in zip(range(limit), client.jobs(), strict=False)]
    if as_json:
        print_json(JobList(jobs=found).model_dump_json())
    else:
        console.print(_table(found))


@app.command("watch")
def watch(job: JobId, server: Server = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Follow a training to its end; exit code 1 when it fails or is cancelled. --json prints a line for each event."""
    with one_line_errors(), Client(server, key) as client:
        _watch(client, job, as_json=as_json)


@app.command("cancel")
def cancel(job: JobId, server: Server = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Cancel a training; of one that is over, the record is removed."""
    with one_line_errors(), Client(server, key) as client:
        left = client.cancel_job(job)
    if as_json:
        print_json(left.model_dump_json() if left is not None else json.dumps({"removed": job}))
    else:
        console.print(
            f"removed {job}" if left is None else f"cancelling {job}" if left.state != "cancelled" else f"cancelled {job}"
        )


def _watch(client: Client, job: str, *, as_json: bool) -> None:
    """Show a job's events as they come: as a bar, or one JSON document a line."""
    last: JobView | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=as_json) as progress:
        bar = progress.add_task(job, total=None)
        for event in client.follow_job(job):
            at = event.content
            if as_json:
                print_json(json.dumps({"event": event.kind, **at}))
            if event.kind == END:
                last = JobView.model_validate(at)
            elif event.kind == "progress":
                said = f"epoch {at['epoch']}/{at['epochs']}, loss {at['loss']:.3f}, {at['texts_per_second']:.0f} texts/s"
                progress.update(bar, completed=at["step"], total=at["steps"], description=said)
            elif event.kind == "metrics" and not as_json:
                console.print(f"epoch {at['epoch']}: {_figures(at['metrics'])}")
            elif event.kind == "state":
                progress.update(bar, description=at["state"])
    if last is not None and not as_json:
        _tell(last)
    if last is None or last.state != "succeeded":
        raise typer.Exit(1)


def _tell(job: JobView) -> None:
    if job.result is not None:
        for split, values in job.result.metrics.items():
            console.print(f"  {split}: {_figures(values)}")
    if job.error is not None:
        errors.print(f"[bold red]error:[/] {job.id} {job.state}: {escape(job.error.detail)}", soft_wrap=True)
    elif job.result is None:
        errors.print(f"[bold red]error:[/] {job.id} {job.state}", soft_wrap=True)
    else:
        alias = f", which {job.result.alias} points at" if job.result.alias else ""
        console.print(f"[green]{job.name}:{job.result.version}[/] published{alias}")


def _table(jobs: Sequence[JobView]) -> Table:
    table = Table("id", "adapter", "state", "created", "progress", "came of it")
    for job in jobs:
        at = job.progress
        step = f"{100 * at.step / at.steps:.0f} %" if at and at.step and at.steps else ""
        table.add_row(job.id, job.name, job.state, f"{job.created:%Y-%m-%d %H:%M}", step, escape(_came_of(job)))
    return table


def _came_of(job: JobView) -> str:
    if job.error is not None:
        return job.error.detail
    if job.result is None:
        return ""
    alias = f"  {job.result.alias} → {job.result.version}" if job.result.alias else ""
    return f"{job.name}:{job.result.version}{alias}"


def _figures(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def _pairs(option: str, given: Sequence[str]) -> dict[str, Any]:
    """Names and values; a value is a number, true or false, or a list, where it reads as JSON, and else a text."""
    found = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise typer.BadParameter(f"{pair!r}: expected NAME=VALUE", param_hint=option)
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found


def _gates(given: Sequence[str]) -> dict[str, float]:
    found = _pairs("--gate", given)
    for name, value in found.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise typer.BadParameter(f"{name}={value}: expected METRIC=NUMBER, such as accuracy=0.8", param_hint="--gate")
    return found
