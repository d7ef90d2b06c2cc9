"""The command line: ``quickchange serve``, ``doctor``, and the groups ``adapters``, ``jobs`` and ``keys``."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from service import cli_adapters, cli_doctor, cli_jobs, cli_verify
from service.cli_flags import with_flags
from service.cli_keys import keys
from service.cli_output import EXIT_CODES, console, errors, one_line_errors
from service.cli_plugins import PluginGroup
from service.compute import limit_threads
from service.settings import load_settings
from service.store.selector import LIVE

if TYPE_CHECKING:
    from service.app import Application
    from service.store.entries import Adapter

app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    help="One base model in memory; every request wears its own adapter.",
    epilog=EXIT_CODES,
)
cli_adapters.app.command("verify")(cli_verify.verify)
app.add_typer(cli_adapters.app, name="adapters")
app.add_typer(cli_jobs.app, name="jobs")
app.add_typer(keys, name="keys")
SHOWN = 20  # adapters in the table that the server prints


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


app.command("serve")(with_flags()(_serve))
app.command("doctor")(cli_doctor.doctor)


def announce(application: Application, url: str) -> None:
    """Print where the server listens, what it serves, and a call of each endpoint to paste."""
    services = application.services
    console.print(f"\n[bold green]Quickchange[/] serves [bold]{services.base_model}[/] at [bold]{url}[/]   docs: {url}/schema\n")
    table = Table("adapter", "task", "aliases", "labels", box=None, padding=(0, 2))
    registry = services.lifecycle.registry
    shown_adapters, _ = registry.page(SHOWN)
    manifests = registry.records.manifests([adapter.name for adapter in shown_adapters])
    for adapter in shown_adapters:
        manifest = manifests.get(adapter.name, {}).get(_shown_version(adapter))
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
