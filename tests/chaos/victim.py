"""A process whose children change a registry and kill themselves at a step: ``python -m tests.chaos.victim``.

It imports everything once and forks a child for every line on standard input, a :class:`Task` as JSON; a line on standard
output says what became of it, a :class:`Death` as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import alembic.command  # noqa: F401  # before the children need it
from sqlalchemy import Engine, Pool, event

from service.store.database import Database
from service.store.disk import Disk
from service.store.files import ObjectStore
from service.store.records import Records
from service.store.registry import Registry
from service.store.weights import Data
from tests.chaos.changes import ADAPTERS, CHANGES

DONE = "done in "
CALLS = ("os.mkdir", "os.remove", "os.rmdir")


@dataclass(frozen=True)
class Task:
    """A change, by its name, to the registry in a folder and a database; when to die: at a step, after a time, or never."""

    change: str
    folder: str
    url: str | None = None
    at: int | None = None
    after: float | None = None


@dataclass(frozen=True)
class Death:
    """The steps that a child came to, the last one the one that it died at; ``seconds`` when it had completed the change."""

    steps: list[str]
    seconds: float | None
    killed: bool


class Steps:
    """Writes the name of every step, and is the end at the last one. Nothing counts before it is ``armed``."""

    def __init__(self, out: int, last: int | None) -> None:
        self._out, self._last, self._count = out, last, 0
        self.armed = False

    def __call__(self, name: str) -> None:
        if not self.armed:
            return
        self._count += 1
        self.say(name)
        if self._count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def say(self, line: str) -> None:
        """Write a line, whatever happens next."""
        os.write(self._out, f"{line}\n".encode())


class SteppedDisk(Disk):
    """A disk on which every file and every fsync is a step."""

    def __init__(self, root: Path, steps: Steps) -> None:
        self._steps = steps
        super().__init__(root, self._stepped_fsync)

    def create(self, path: str, data: Data) -> None:
        self._stepped(f"create {path}", lambda: super(SteppedDisk, self).create(path, data))

    def replace(self, path: str, data: Data) -> None:
        self._stepped(f"replace {path}", lambda: super(SteppedDisk, self).replace(path, data))

    def _stepped(self, name: str, call: Callable[[], None]) -> None:
        self._steps(f"before {name}")
        call()
        self._steps(f"after {name}")

    def _stepped_fsync(self, descriptor: int) -> None:
        self._steps(f"before fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        os.fsync(descriptor)


def _watch_calls(root: Path, steps: Steps) -> None:
    """Make a step of every folder made and every file and folder removed below ``root``."""

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        if name in CALLS and str(arguments[0]).startswith(f"{root}/"):
            steps(f"before {name} {Path(arguments[0]).relative_to(root)}")

    sys.addaudithook(watch)


def _watch_database(steps: Steps) -> None:
    """Make a step of every statement that is no query, and of the moments before and after a commit."""

    def before_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):
            steps(f"before {' '.join(statement.split()[:3])}")

    event.listen(Engine, "before_cursor_execute", before_statement)
    event.listen(Engine, "commit", lambda _: steps("before commit"))
    event.listen(Pool, "checkin", lambda *_: steps("after commit"))


def _suffer(task: Task, out: int) -> None:
    """Do the task, and die at its step."""
    folder, change, steps = Path(task.folder), CHANGES[task.change], Steps(out, task.at)
    _watch_calls(folder / ADAPTERS, steps)
    _watch_database(steps)
    steps.armed = change.fresh
    start = time.monotonic()
    if task.after is not None and change.fresh:
        signal.setitimer(signal.ITIMER_REAL, task.after)  # nobody catches its signal
    registry = Registry(ObjectStore(SteppedDisk(folder / ADAPTERS, steps)), Records(Database(task.url, folder / ADAPTERS)))
    if not change.fresh:
        steps.armed, start = True, time.monotonic()
        if task.after is not None:
            signal.setitimer(signal.ITIMER_REAL, task.after)
    change.run(registry)
    steps.say(f"{DONE}{time.monotonic() - start}")
    steps("after the answer")


def _sacrifice(task: Task) -> Death:
    """Fork a child for the task, and tell what became of it."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(out)
            _suffer(task, into)
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with open(out, encoding="utf-8") as said:  # noqa: PTH123  # a descriptor has no path
        lines = said.read().splitlines()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{task} failed without being killed")
    done = [float(line.removeprefix(DONE)) for line in lines if line.startswith(DONE)]
    return Death([line for line in lines if not line.startswith(DONE)], done[0] if done else None, os.WIFSIGNALED(status))


def main() -> None:
    """Sacrifice children until there are no more tasks."""
    for line in sys.stdin:
        print(json.dumps(asdict(_sacrifice(Task(**json.loads(line))))), flush=True)  # noqa: T201  # this is how it talks


if __name__ == "__main__":
    main()
