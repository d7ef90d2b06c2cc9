"""A benchmark's report: what was measured, on what, as JSON and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console

from loadtest.figures import Figure, rounded, table
from loadtest.machine import commit, load_average, machine, versions
from loadtest.plan import Curve, Part

ROOT = Path(__file__).resolve().parent.parent
console = Console(highlight=False)


@dataclass(slots=True)
class Report:
    """What a run found so far; ``given`` is what it was asked for."""

    name: str
    given: dict[str, object]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    before: list[float] = field(default_factory=load_average)
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure]:
        """Every figure, in order."""
        return [figure for part in self.parts.values() for figure in part.figures]

    def add(self, name: str, part: Part) -> None:
        """Keep a part, and print its figures."""
        self.parts[name] = part
        console.print(f"[bold]{name}[/]")
        console.print(table(part.figures))

    def write(self, folder: Path) -> Path:
        """Write the report, print where it was measured, and return its file."""
        where = machine()
        content = {
            "started": self.started.isoformat(timespec="seconds"),
            "commit": commit(ROOT), "machine": where, "versions": versions(),
            "threads": torch.get_num_threads(), "load_average": {"before": self.before, "after": load_average()}, **self.given,
            "figures": [figure.as_json() | {"part": name} for name, part in self.parts.items() for figure in part.figures],
            "curves": {name: _as_json(curve) for part in self.parts.values() for name, curve in part.curves.items()},
        }  # fmt: skip
        console.print(
            f"{where['processor']}, {where['cores']} cores, {content['threads']} threads, commit {content['commit']}, "
            f"{', '.join(f'{key}: {value}' for key, value in self.given.items())}, load average {content['load_average']}",
            soft_wrap=True,
        )
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}-{self.started:%Y%m%d-%H%M%S}.json"
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"report: {file}", soft_wrap=True)
        return file


def _as_json(curve: Curve) -> dict[str, object]:
    return asdict(curve) | {"y": {name: [rounded(value) for value in line] for name, line in curve.y.items()}}


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows what is going on: in a line that changes, or without a terminal in a line each."""
    if not console.is_terminal:
        yield lambda text: console.print(f"… {text}", soft_wrap=True)
        return
    with console.status("…") as status:
        yield status.update
