"""``quickchange adapters …``: the adapters of a running server, by its HTTP interface."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.markup import escape

from service.cli_output import EXIT_CODES, AsJson, Key, Server, console, one_line_errors, print_json
from service.cli_tables import adapters_table, alias_tables, aliases_table, audit_table, points_at, published_line, versions_table
from service.client import Client, calls
from service.client.call import Call
from service.client.transport import LOCAL
from service.routes.schemas import AdapterList, AdapterView, Published
from service.routes.views import AliasView, AuditEntry

T = TypeVar("T")
SHARE = re.compile(r"\s*(\d{1,9})\s*=\s*(\d{1,3})\s*%?\s*")
RULE = re.compile(r"\s*(\S+?)\s*>=\s*(\S+)\s*")

app = typer.Typer(no_args_is_help=True, help="Adapters of a running server, from upload to retirement.", epilog=EXIT_CODES)

Name = Annotated[str, typer.Argument(help="adapter")]
Alias = Annotated[str, typer.Argument(help="alias of it, such as live")]
IfMatch = Annotated[int | None, typer.Option(help="only if this is still its generation, which 'show NAME@ALIAS' prints")]


@app.command("list")
def list_adapters(server: Server = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """List every adapter, with its versions and aliases."""
    with one_line_errors(), Client(server, key) as client:
        found = list(client.adapters())
    if as_json:
        print_json(AdapterList(adapters=found).model_dump_json())
    else:
        console.print(adapters_table(found))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME[@ALIAS]", help="an adapter, or one of its aliases")],
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show an adapter's versions, metrics and aliases; or, for NAME@ALIAS, where that points and every move of it."""
    with one_line_errors(), Client(server, key) as client:
        adapter, is_alias, alias = name.partition("@")
        if is_alias:
            _answer(client, calls.alias(adapter, alias), as_json, lambda view: console.print(*alias_tables(view), sep="\n"))
        else:
            _answer(client, calls.adapter(adapter), as_json, lambda view: _show_adapter(client, view))


@app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="a bundle from training, or any PEFT adapter's folder")],
    name: Annotated[str | None, typer.Option(help="adapter name; else the manifest's, else the folder's")] = None,
    alias: Annotated[str | None, typer.Option(help="alias to point at the new version, such as live")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="do all the checks, and publish nothing")] = False,
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload an adapter; with --alias live, the next request is answered by it."""

    def told(published: Published) -> None:
        console.print(published_line(published), soft_wrap=True)

    with one_line_errors(), Client(server, key) as client:
        _answer(client, calls.push(folder, name, alias, dry_run=dry_run), as_json, told)


@app.command("pull")
def pull(
    selector: Annotated[str, typer.Argument(metavar="NAME[@ALIAS|:VERSION]", help="which version; a bare name is its live one")],
    folder: Annotated[Path | None, typer.Argument(help="new folder for it; else NAME-VERSION here")] = None,
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Download a version's files into a new folder, each compared with the manifest."""
    with one_line_errors(), Client(server, key) as client:
        written = client.pull(selector, folder)
        _say(f"[green]{escape(str(written))}[/]", {"folder": str(written)}, as_json=as_json)


@app.command("alias")
def point_alias(
    name: Name,
    alias: Alias,
    version: Annotated[int | None, typer.Argument(help="version to point at, unless --split is given")] = None,
    split: Annotated[str | None, typer.Option(metavar="VERSION=PERCENT,…", help="a canary: 3=90,4=10")] = None,
    shadow: Annotated[int | None, typer.Option(help="version whose answers are compared with the others, never returned")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC>=ALIAS|NUMBER", help="refuse a version below it, as in 'macro_f1>=live'; repeat for more"),
    ] = None,
    if_match: IfMatch = None,
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a version, or split it over several; the next request for it is answered by that."""
    if (version is None) == (split is None):
        raise typer.BadParameter("give either a version or --split", param_hint="VERSION")
    shares, required = _shares(split) if split is not None else None, rules(require or ())
    with one_line_errors(), Client(server, key) as client:
        call = calls.set_alias(name, alias, version, split=shares, shadow=shadow, require=required, if_match=if_match)
        _answer(client, call, as_json, _moved)


@app.command("rollback")
def rollback(
    name: Name, alias: Alias, if_match: IfMatch = None, server: Server = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Point an alias where it pointed before its last move."""
    with one_line_errors(), Client(server, key) as client:
        _answer(client, calls.rollback(name, alias, if_match=if_match), as_json, _moved)


@app.command("unalias")
def remove_alias(name: Name, alias: Alias, server: Server = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Take an alias away; the versions that it pointed at stay."""
    with one_line_errors(), Client(server, key) as client:
        client.remove_alias(name, alias)
        _say(f"removed {name}@{alias}", {"removed": f"{name}@{alias}"}, as_json=as_json)


@app.command("rm")
def remove(name: Name, version: int, server: Server = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Delete a version that no alias points at."""
    with one_line_errors(), Client(server, key) as client:
        client.delete(name, version)
        _say(f"deleted {name}:{version}", {"deleted": f"{name}:{version}"}, as_json=as_json)


@app.command("audit")
def audit(
    adapter: Annotated[str | None, typer.Argument(metavar="NAME", help="changes of this adapter only")] = None,
    limit: Annotated[int, typer.Option(help="how many")] = 50,
    before: Annotated[int | None, typer.Option(help="those before the change of this id")] = None,
    server: Server = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what and when, the newest first."""

    def told(entries: Sequence[AuditEntry]) -> None:
        console.print(audit_table(entries))

    with one_line_errors(), Client(server, key) as client:
        _answer(client, calls.audit(limit, before=before, adapter=adapter), as_json, told)


def _answer(client: Client, call: Call[T], as_json: bool, told: Callable[[T], None]) -> None:
    response = client.fetch(call)
    answer = call.parse(response)
    if as_json:
        print_json(response.text)
    else:
        told(answer)


def _show_adapter(client: Client, adapter: AdapterView) -> None:
    console.print(versions_table(adapter))
    if adapter.aliases:
        console.print(aliases_table([client.alias(adapter.name, alias) for alias in sorted(adapter.aliases)]))


def _moved(view: AliasView) -> None:
    shadow = f", shadow {view.shadow}" if view.shadow is not None else ""
    console.print(f"[green]{view.adapter}@{view.alias}[/] → {points_at(view.split)}{shadow}  (generation {view.generation})")


def _shares(split: str) -> Mapping[int, int]:
    found = [SHARE.fullmatch(part) for part in split.split(",")]
    shares = {int(match[1]): int(match[2]) for match in found if match}
    if len(shares) != len(found):
        raise typer.BadParameter(f"{split!r}: expected each version once, such as 3=90,4=10", param_hint="--split")
    return shares


def rules(given: Sequence[str]) -> Mapping[str, str]:
    """What an alias requires, from ``METRIC>=ALIAS`` and the like; raises :class:`typer.BadParameter`."""
    found = {rule: RULE.fullmatch(rule) for rule in given}
    for rule, match in found.items():
        if match is None:
            raise typer.BadParameter(f"{rule!r}: expected METRIC>=ALIAS or METRIC>=0.8", param_hint="--require")
    return {match[1]: f">= {match[2]}" for match in found.values() if match}


def _say(text: str, done: dict[str, str], *, as_json: bool) -> None:
    """One line on what was done, or the same as JSON."""
    if as_json:
        print_json(json.dumps(done))
    else:
        console.print(text, soft_wrap=True)
