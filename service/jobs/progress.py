"""What a training reports: lines of JSON in a file that grows, read on from any place in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

PROGRESS_EVENT, METRICS_EVENT = "progress", "metrics"
PART = 2**18  # bytes read at a time
TAIL = 4096  # bytes, in which the last lines are


@dataclass(frozen=True, slots=True)
class Report:
    """One line: where the training is, or an epoch's figures; ``end`` is where the next begins, in bytes."""

    end: int
    event: Literal["progress", "metrics"]
    content: dict[str, Any]


def read_on(file: Path, start: int) -> list[Report]:
    """The reports from ``start`` on, as far as they are whole; of progress in a row only the last.

    A line that a killed training has left unfinished is left out.
    """
    try:
        with file.open("rb") as source:
            source.seek(start)
            data = source.read(PART)
    except FileNotFoundError:
        return []
    found: list[Report] = []
    end = start
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        report = _report(line, end)
        if report is None:
            continue
        if found and report.event == found[-1].event == PROGRESS_EVENT:
            found.pop()
        found.append(report)
    return found


def latest(file: Path) -> dict[str, Any]:
    """Where the training was last: the newest of every field that it reports."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return {}
    fields: dict[str, Any] = {}
    for report in read_on(file, max(0, size - TAIL)):
        fields |= report.content
    return fields


def _report(line: bytes, end: int) -> Report | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict) or content.get("event") not in (PROGRESS_EVENT, METRICS_EVENT):
        return None
    event = cast("Literal['progress', 'metrics']", content.pop("event"))
    return Report(end, event, content)
