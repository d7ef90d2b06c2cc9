"""``quickchange keys …``: API keys in the file that the server reads; a running one notices changes within a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.cli_output import console, one_line_errors
from service.routes.keys import SCOPES, ApiKey, read_keys
from service.routes.keys_file import add_key, revoke_keys

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of a server; it need not be restarted.")
VARIABLE = "QUICKCHANGE_API_KEYS_FILE"
File = Annotated[Path, typer.Option("--file", envvar=VARIABLE, help="the keys file, made by the first key")]
FILE = Path("api-keys.txt")


@keys.command("add")
def add(
    owner: Annotated[str, typer.Argument(help="whose key it is, one word")],
    scope: Annotated[list[str], typer.Option(help=f"what it may do, out of {', '.join(SCOPES)}; repeat for several")],
    prefix: Annotated[str | None, typer.Option(help="what its adapters' names begin with; others do not exist for it")] = None,
    rate: Annotated[str | None, typer.Option(help="requests a second that it may send")] = None,
    concurrency: Annotated[str | None, typer.Option(help="requests that it may have in work at a time")] = None,
    file: File = FILE,
) -> None:
    """Make an API key: print it, this once, and add its hash to the keys file."""
    with one_line_errors():
        key, made = add_key(file, owner, frozenset(scope), prefix=prefix, rate=rate, concurrency=concurrency)
    typer.echo(key)
    typer.echo(f"key {made.id} of {made.owner}, added to {file}; it is not shown again", err=True)


@keys.command("list")
def show(file: File = FILE, as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False) -> None:
    """List the keys by their ids, with what each may do."""
    with one_line_errors():
        found = read_keys(file)
    if as_json:
        typer.echo(json.dumps([_described(key) for key in found], indent=2))
        return
    table = Table("id", "owner", "scopes", "prefix", "requests/s", "at a time")
    for key in found:
        rate = f"{key.rate:g}" if key.rate is not None else ""
        table.add_row(key.id, escape(key.owner), _scopes(key), key.prefix, rate, str(key.concurrency or ""))
    console.print(table)


@keys.command("revoke")
def revoke(
    named: Annotated[str, typer.Argument(metavar="ID_OR_OWNER", help="a key's id, or an owner, for every key of theirs")],
    file: File = FILE,
) -> None:
    """Take keys out of the file; a running server refuses them within a second."""
    with one_line_errors():
        for key in revoke_keys(file, named):
            typer.echo(f"revoked {key.id} of {key.owner}: {_scopes(key)}")


def _scopes(key: ApiKey) -> str:
    return ", ".join(sorted(key.scopes))


def _described(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "owner": key.owner,
        "scopes": sorted(key.scopes),
        "prefix": key.prefix,
        "rate": key.rate,
        "concurrency": key.concurrency,
    }
