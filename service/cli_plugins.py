"""Commands that other installed packages add to ``quickchange``, imported only when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.main import get_command

from service.cli_output import errors, one_line_errors
from service.errors import QuickchangeError

GROUP = "quickchange.commands"  # of entry points that name a mapping: command → (module:function, a line of help)
EXTRA = "quickchange[train]"


class MissingLibrary(QuickchangeError):
    """A command's libraries are not installed."""


@cache
def plugins() -> Mapping[str, tuple[str, str]]:
    """What is added: for each command its function as ``module:name`` and a line of help."""
    found: dict[str, tuple[str, str]] = {}
    for point in entry_points(group=GROUP):
        try:
            found |= point.load()
        except ImportError as error:  # what is wrong with another package leaves our own commands as they are
            errors.print(f"[yellow]no commands of {escape(point.name)}:[/] {escape(str(error))}", soft_wrap=True)
    return found


class PluginGroup(TyperGroup):
    """The group of all commands; an added one is imported when it runs or shows its own help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of our own commands, then those of the added ones."""
        return [*super().list_commands(ctx), *plugins()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of our own commands, or what an added one looks like in the list of all."""
        return _listed(cmd_name) if cmd_name in plugins() else super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that these arguments call, and the arguments left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return (name, _loaded(name) if name is not None and name in plugins() else command, rest)


def _listed(name: str) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name, help=plugins()[name][1])(lambda: None)
    return get_command(app)


def _loaded(name: str) -> Any:
    module, function = plugins()[name][0].split(":")
    try:
        command = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        with one_line_errors():
            raise MissingLibrary(f"{name} needs {error.name}, which is not installed: pip install '{EXTRA}'") from None
    app = typer.Typer(add_completion=False)
    app.command(name)(command)
    return cast("Any", get_command(app))
