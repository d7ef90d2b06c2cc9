"""The command line, called in this process as a terminal of 200 columns would."""

from __future__ import annotations

import re
from collections.abc import Callable

from typer import Typer
from typer.testing import CliRunner, Result

from service.cli import app


def quickchange(*arguments: str, **variables: str) -> Result:
    """Run a command, with further environment variables."""
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb", **variables}).invoke(app, list(arguments))


def words(result: Result) -> str:
    """What was printed, without the lines of tables."""
    return re.sub(r"[\s│┃]+", " ", result.stdout)


def fails(result: Result, *said: str) -> None:
    """Check that the command ended with one line, which says this, and exit code 1."""
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: "), result.stderr
    for part in said:
        assert part in result.stderr, result.stderr
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)


def script(main: Callable[..., None], *arguments: str) -> tuple[int, str]:
    """Exit code and output of a training command's function, in a wide terminal."""
    wrapped = Typer()
    wrapped.command()(main)
    result = CliRunner(env={"COLUMNS": "250", "TERM": "dumb"}).invoke(wrapped, list(arguments))
    assert "Traceback" not in result.output and (result.exception is None or isinstance(result.exception, SystemExit))
    return result.exit_code, result.output
