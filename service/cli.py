"""The command line: ``quickchange serve``, ``quickchange adapters …`` and ``quickchange keys …``."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape
from rich.table import Table

from service.cli_keys import keys
from service.cli_output import console, errors, one_line_errors
from service.compute import limit_threads
from service.settings import PREFIX, Bytes, Settings, load_settings
from service.store.selector import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.app import Application
    from service.client import Client
    from service.store.records import Adapter

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="One base model in memory; every request wears its own adapter."
)
adapters = typer.Typer(no_args_is_help=True, help="List, show, upload, point and delete the adapters of a running server.")
app.add_typer(adapters, name="adapters")
app.add_typer(keys, name="keys")

Server = Annotated[str, typer.Option("--server", envvar=f"{PREFIX}SERVER", help="address of the server")]
Key = Annotated[str | None, typer.Option("--key", envvar=f"{PREFIX}API_KEY", help="API key, where the server wants one")]
SHOWN = 20  # adapters in the table that the server prints
LOCAL = "http://127.0.0.1:8000"


def _serve(**flags: object) -> None:
    """Serve the base model and the adapters over HTTP until SIGTERM, which lets the requests in flight finish."""
    with one_line_errors():
        settings = load_settings(**flags)
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        with console.status(f"loading {settings.base_model}, {settings.image_encoder} and {settings.sentence_encoder} …"):
            limit_threads()
            from service.server import serve
        serve(settings, announce)


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = field.annotation
    if get_origin(kind) is Literal or kind is Bytes:
        kind = str
    elif type(None) in get_args(kind):
        kind = next(arg for arg in get_args(kind) if arg is not type(None))
    option = f"--{name.replace('_', '-')}"
    default = f" [default: {field.default}]" if field.default is not None else ""
    help_text = f"{field.description}{default} [env: {PREFIX}{name.upper()}]"
    info = typer.Option(option, help=escape(help_text), show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info])  # type: ignore[operator]


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command one flag for each setting, so that a setting's name is written once."""
    parameters = [_flag(name, field) for name, field in Settings.model_fields.items()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


app.command("serve")(_with_flags(_serve))


def announce(application: Application, url: str) -> None:
    """Print where the server listens, what it serves, and a call of each endpoint to paste."""
    services = application.services
    console.print(f"\n[bold green]Quickchange[/] serves [bold]{services.base_model}[/] at [bold]{url}[/]   docs: {url}/schema\n")
    table = Table("adapter", "task", "aliases", "labels", box=None, padding=(0, 2))
    registry = services.lifecycle.registry
    for adapter in islice(registry, SHOWN):
        manifest = registry.manifests(adapter).get(_shown_version(adapter))
        labels = manifest.labels if manifest else ()
        shown = ", ".join(labels[:4]) + (f" … ({len(labels)})" if len(labels) > 4 else "")  # noqa: PLR2004  # what fits a line
        aliases = ", ".join(f"{name} → {alias.target.version}" for name, alias in sorted(adapter.aliases.items()))
        table.add_row(adapter.name, adapter.task or "–", aliases or "–", escape(shown))
    console.print(table)
    if len(registry) > SHOWN:
        console.print(f"and {len(registry) - SHOWN} more", style="dim")
    for problem in application.problems:
        errors.print(f"[yellow]not loaded:[/] {escape(problem)}", soft_wrap=True)
    for call in curls(url):
        console.print(f"\n  {call}", soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops it.", style="dim")


def _shown_version(adapter: Adapter) -> int:
    live = adapter.aliases.get(LIVE)
    return live.target.version if live else max(adapter.versions, default=0)


def curls(url: str) -> list[str]:
    """A call of each predicting endpoint, ready to paste."""
    as_json = "-H 'content-type: application/json'"
    return [
        f"""curl {url}/v1/sentiment {as_json} -d '{{"text": "I love how quickly this works"}}'""",
        f"""curl {url}/v1/classify {as_json} -d '{{"text": "Oh great, another Monday", "adapters": ["irony", "emotion"]}}'""",
        f"""curl {url}/v1/vqa -F image=@docs/example-room.jpg -F 'question=what is on the table'""",
    ]


@adapters.command("list")
def list_adapters(server: Server = LOCAL, key: Key = None) -> None:
    """List the adapters of a running server."""
    with _client(server, key) as client:
        table = Table("adapter", "task", "versions", "aliases", "labels")
        for adapter in client.adapters():
            aliases = ", ".join(f"{alias} → {version}" for alias, version in sorted(adapter["aliases"].items()))
            table.add_row(adapter["name"], adapter["task"], str(len(adapter["versions"])), aliases, str(len(adapter["labels"])))
        console.print(table)


@adapters.command("show")
def show_adapter(name: str, server: Server = LOCAL, key: Key = None) -> None:
    """Show an adapter's versions, where its aliases point, and its metrics."""
    with _client(server, key) as client:
        adapter = client.adapter(name)
        aliases = {version: alias for alias, version in adapter["aliases"].items()}
        title = escape(f"{name}: {', '.join(adapter['labels'][:8])}")
        table = Table(
            "version",
            "alias",
            "created",
            "state",
            "metrics",
            "digest",
            title=title,
        )
        for version in adapter["versions"]:
            metrics = escape("\n".join(f"{split}: {_figures(values)}" for split, values in version["metrics"].items()))
            created, digest = version["created"][:16], version["digest"][7:19]
            table.add_row(
                str(version["version"]), aliases.get(version["version"], ""), created, version["state"], metrics, digest
            )
        console.print(table)


@adapters.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="a bundle from training, or any PEFT adapter's folder")],
    name: Annotated[str | None, typer.Option(help="adapter name; else the manifest's, else the folder's")] = None,
    alias: Annotated[str | None, typer.Option(help="alias to point at the new version, such as live")] = None,
    server: Server = LOCAL,
    key: Key = None,
) -> None:
    """Upload an adapter to a running server; with --alias live, the next request is answered by it."""
    with _client(server, key) as client:
        published = client.push(folder, name, alias)
        aliases = ", ".join(f"{at} → {version}" for at, version in sorted(published["aliases"].items())) or "none"
        console.print(f"[green]{published['name']}:{published['version']}[/]  {published['digest'][:19]}…  aliases: {aliases}")


@adapters.command("alias")
def point_alias(name: str, alias: str, version: int, server: Server = LOCAL, key: Key = None) -> None:
    """Point an alias at a version; the next request for it is answered by that version."""
    with _client(server, key) as client:
        client.set_alias(name, alias, version)
        console.print(f"[green]{name}@{alias}[/] → {version}")


@adapters.command("unalias")
def remove_alias(name: str, alias: str, server: Server = LOCAL, key: Key = None) -> None:
    """Take an alias away; the version that it pointed at stays."""
    with _client(server, key) as client:
        client.remove_alias(name, alias)
        console.print(f"removed {name}@{alias}")


@adapters.command("rm")
def remove(name: str, version: int, server: Server = LOCAL, key: Key = None) -> None:
    """Delete a version that no alias points at."""
    with _client(server, key) as client:
        client.delete(name, version)
        console.print(f"deleted {name}:{version}")


@contextmanager
def _client(server: str, key: str | None) -> Iterator[Client]:
    from service.client import Client

    with one_line_errors(), closing(Client(server, key)) as client:
        yield client


def _figures(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
