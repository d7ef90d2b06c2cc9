"""``quickchange adapters verify``: the checks of an upload, on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from service.cli_flags import with_flags
from service.cli_output import AsJson, console, errors, one_line_errors, print_json
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from service.verify import Finding


@with_flags("adapters_dir", "base_model", "image_encoder", "sentence_encoder", "max_lora_rank")
def verify(
    versions: Annotated[
        list[str] | None, typer.Argument(metavar="FOLDER|NAME|NAME:VERSION", help="what to check; else every stored version")
    ] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="check files and digests, without loading the models")] = False,
    as_json: AsJson = False,
    **flags: object,
) -> None:
    """Check versions on disk as an upload is checked, and list every fault; needs no running server."""
    with one_line_errors():
        found = list(_verify(load_settings(**flags), versions or (), files_only=files_only))
    faulty = sum(bool(finding.faults) for finding in found)
    if as_json:
        entries = [{"version": f.name, "folder": str(f.folder), "task": f.task, "faults": f.faults} for f in found]
        print_json(json.dumps({"versions": entries, "faulty": faulty}))
    else:
        console.print(_table(found))
        console.print(f"{len(found)} checked, [red]{faulty} faulty[/]" if faulty else f"{len(found)} checked, none faulty")
    raise typer.Exit(1 if faulty else 0)


def _verify(settings: Settings, versions: Sequence[str], *, files_only: bool) -> Iterator[Finding]:
    from service.verify import Models, find, verify  # and with it torch, which takes a second

    candidates = find(versions, settings.adapters_dir)
    with ExitStack() as stack:
        models = None
        if not files_only:
            towers = settings.image_encoder, settings.sentence_encoder
            models = stack.enter_context(Models(settings.base_model, *towers, settings.max_lora_rank))
        for candidate in track(candidates, "checking …", console=errors, transient=True, disable=not errors.is_terminal):
            yield verify(candidate, models)


def _table(found: Sequence[Finding]) -> Table:
    table = Table("version", "task", "faults")
    for finding in found:
        faults = "[red]✗[/] " + escape("\n".join(finding.faults)) if finding.faults else "[green]✓[/]"
        table.add_row(escape(finding.name), finding.task or "–", faults)
    return table
