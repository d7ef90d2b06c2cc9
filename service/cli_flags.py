"""The settings as flags of a command, so that a setting's name is written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from service.settings import PREFIX, Bytes, Settings


def with_flags(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes ``**flags`` one flag for each of these settings, or for all where none is named."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        fields = {name: Settings.model_fields[name] for name in names} or Settings.model_fields
        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [one for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters += [_flag(name, field) for name, field in fields.items()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return wrap


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
