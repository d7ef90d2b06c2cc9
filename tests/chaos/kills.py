"""kill -9 at every step of every change: afterwards everything is as it was before, or as it would have become."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.store.alias import Target
from service.store.database import FILE
from service.store.entries import QUARANTINED, READY
from service.store.registry import Registry
from service.store.selector import Ref
from tests.chaos.changes import ADAPTERS, ALIASES, CHANGES, DAMAGED, begin, bundle
from tests.chaos.rows import Row
from tests.chaos.victim import Death, Task

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = 20  # at which a change is killed, beside its steps
Say = Callable[[str], None]
State = Mapping[str, Any]


class Victims:
    """A process whose children die as they are told to; leaving the context ends it."""

    def __enter__(self) -> Self:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a child has only the thread that forked it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.victim"],
            cwd=ROOT, env={**os.environ, **threads}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate(timeout=30)

    def __call__(self, task: Task) -> Death:
        """What becomes of a child with this task."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{task} ended the process that was to try it")
        return Death(**json.loads(line))


@dataclass
class Place:
    """A registry's folder and database; the default one of the folder, or another by its URL."""

    folder: Path
    url: str | None = None

    @contextmanager
    def open(self) -> Iterator[Registry]:
        """Its registry, as a server opens it."""
        with closing(Registry.open(self.folder / ADAPTERS, self.url)) as registry:
            yield registry

    def copy(self, folder: Path, new: Callable[..., str] | None, *, empty: bool = False) -> Place:
        """The same again in another folder, and in a new database, or an ``empty`` one; ``new`` makes those that have a URL."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        if self.url is None or new is None:
            return Place(folder)
        return Place(folder, new() if empty else new(like=self.url))


def kills(
    victims: Victims,
    scratch: Path,
    new: Callable[..., str] | None = None,
    every: int = 1,
    moments: int = MOMENTS,
    say: Say = lambda _: None,
) -> list[Row]:
    """Kill each change at every so-manieth step, and at so many moments of its time; a row for each change and kind.

    The database is SQLite, or what ``new`` makes, which gives the URL of an empty database, or of one that is ``like`` another.
    """
    start = Place(scratch / "start", new() if new else None)
    with start.open() as registry:
        begin(registry, start.folder)
    rows = []
    for number, name in enumerate(CHANGES):
        say(f"kill -9 during {name}")
        trial = Trial(name, start, scratch, new, victims)
        rows += trial.at_steps(every, number % every)
        if moments:
            rows += trial.at_moments(moments)
    return rows


class Trial:
    """One change, and what is there before it and after it when nobody dies."""

    def __init__(self, name: str, start: Place, scratch: Path, new: Callable[..., str] | None, victims: Victims) -> None:
        self._name, self._change, self._start, self._new, self._victims = name, CHANGES[name], start, new, victims
        self._scratch = scratch
        self.whole = victims(self._task(place := self._place()))
        with place.open() as registry:
            self._after = state(registry)
        with start.open() as registry:
            self._before = self._after if self._change.fresh else state(registry)

    def at_steps(self, every: int, first: int) -> list[Row]:
        """Die at every so-manieth step, and at the last one, when the answer has gone out."""
        steps = [*range(1 + first, len(self.whole.steps), every), len(self.whole.steps)]
        return [self._row("at each step of" if every == 1 else "at some steps of", [{"at": step} for step in steps])]

    def at_moments(self, count: int) -> list[Row]:
        """Die at moments that are spread over the time that the change takes."""
        seconds = self.whole.seconds or 0
        return [self._row("at any moment of", [{"after": seconds * (moment + 0.5) / count} for moment in range(count)])]

    def _row(self, where: str, ends: list[dict[str, Any]]) -> Row:
        found, faults = Counter[str](), []
        for end in ends:
            place = self._place()
            death = self._victims(self._task(place, **end))
            fault, seen = self._judge(place, death)
            found[seen] += 1
            if fault:
                faults.append(f"{death.steps[-1] if death.steps else 'at once'}: {fault}")
        detail = ", ".join(f"{count} times {what}" for what, count in sorted(found.items()))
        database = "PostgreSQL" if self._new else "SQLite"
        return Row(f"kill -9 {where} {self._name}, {database}", len(ends), len(faults), "; ".join([detail, *faults[:3]]))

    def _place(self) -> Place:
        place = self._start.copy(self._scratch / "trial", self._new, empty=self._change.fresh)
        self._change.prepare(place.folder)
        return place

    def _task(self, place: Place, **end: Any) -> Task:
        return Task(self._name, str(place.folder), place.url, **end)

    def _judge(self, place: Place, death: Death) -> tuple[str, str]:
        """What is wrong after a death, or nothing; and whether it was the old state or the new that was found."""
        try:
            with place.open() as registry:
                found = state(registry)
                seen = "as after it" if found == self._after else "as before it"
                check(found in (self._before, self._after), f"half changed: {found}")
                check(found == self._after or death.seconds is None, "what was answered for is not there")
                registry.collect()
                collected = state(registry)
                check(collected in (found, self._after), f"changed by a collection: {collected}")
                check_files(place, registry)
                check_copy(place, registry, self._scratch)
                check_goes_on(registry)
            check_database(place)
        except Exception as error:  # anything at all is what this looks for
            return f"{type(error).__name__}: {error}", "something else"
        return "", seen


def check(holds: bool, fault: str) -> None:  # reads as a sentence
    """Raise :class:`AssertionError` when it does not hold, under ``python -O`` too."""
    if not holds:
        raise AssertionError(fault)


def state(registry: Registry) -> State:
    """All that a registry knows, but for who did what when."""
    records = registry.records
    return {
        adapter.name: {
            "versions": {number: (version.state, version.digest) for number, version in adapter.versions.items()},
            "deleted": sorted(adapter.deleted),
            "newest": adapter.newest,
            "aliases": {alias: (at.generation, at.target.stored) for alias, at in sorted(adapter.aliases.items())},
            "history": {
                alias: [(move.generation, move.action, move.target and move.target.stored) for move in moves]
                for alias in ALIASES
                if (moves := records.history(adapter.name, alias))
            },
            "audit": [(entry.action, entry.version, entry.alias) for entry in records.audit(100, name=adapter.name)],
        }
        for adapter in registry
    }


def check_files(place: Place, registry: Registry) -> None:
    """Every ready version is whole, every alias points at versions that exist, and nobody's files lie about.

    A folder may have stayed in which nothing is any more; a bucket has no such thing, and nobody takes it for a version.
    """
    wanted = {Path(FILE), Path(f"{FILE}-journal")}  # of which SQLite leaves an empty one until it next writes
    for adapter in registry:
        wanted.add(Path(adapter.name, "registry.json"))
        for number, version in adapter.versions.items():
            ref = Ref(adapter.name, number)
            if version.state == READY:
                check(registry.read(ref).manifest.digest == version.digest, f"{ref} is another version's")
            wanted |= {Path(adapter.name, str(number), file) for file in bundle(b"").contents}
        for alias, at in adapter.aliases.items():
            check(at.target.versions <= set(adapter.versions), f"alias {alias} points at what is not there")
    root = place.folder / ADAPTERS
    left = [path.relative_to(root) for path in root.rglob("*") if not path.is_dir()]
    check(set(left) <= wanted, f"left over: {sorted({*left} - wanted)}")


def check_copy(place: Place, registry: Registry, scratch: Path) -> None:
    """From the files alone another database gets the same versions, deleted numbers and aliases."""
    other = Place(place.folder, f"sqlite:///{scratch}/again.db")
    (scratch / "again.db").unlink(missing_ok=True)
    with other.open() as again:
        check(
            essence(again, registry) == essence(registry, registry), f"the files tell something else: {essence(again, registry)}"
        )


def essence(registry: Registry, known: Registry) -> State:
    """What the files have to tell, leaving out versions that are known as damaged."""
    return {
        adapter.name: (
            {
                number: version.digest
                for number, version in adapter.versions.items()
                if known.entry(adapter.name).versions[number].state != QUARANTINED
            },
            adapter.deleted,
            {alias: at.target for alias, at in adapter.aliases.items()},
        )
        for adapter in registry
        if adapter.name != DAMAGED.name
    }


def check_goes_on(registry: Registry) -> None:
    """New versions are published, aliases move, and what is damaged is repaired."""
    newest = registry.get("mood").newest
    ref, is_new = registry.publish("mood", bundle(b"another"))
    check(is_new and ref.version == newest + 1, f"{ref} was published after version {newest}")
    generation = registry.set_alias("mood", "live", Target.at(ref.version)).generation
    check(generation == len(registry.records.history("mood", "live")), f"live is at generation {generation}")
    for repaired in (ref, registry.publish(DAMAGED.name, bundle(b"sad"))[0]):
        registry.read(repaired)
        check(registry.get(repaired.name).versions[repaired.version].state == READY, f"{repaired} is not ready")


def check_database(place: Place) -> None:
    """SQLite finds nothing wrong with its file."""
    if place.url is None:
        with closing(sqlite3.connect(place.folder / ADAPTERS / FILE)) as connection:
            for pragma, right in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                found = connection.execute(f"PRAGMA {pragma}").fetchall()
                check(found == right, f"{pragma}: {found}")
