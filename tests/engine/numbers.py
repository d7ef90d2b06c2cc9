"""A task of plain numbers, which doubles them, and a pipeline around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.engine.device import Device
from service.engine.observer import BatchReport
from service.engine.pipeline import Limits, Pipeline
from service.errors import InvalidInput


@dataclass(frozen=True)
class Numbers:
    values: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def tokens(self) -> int:
        return max(1, self.value)

    @property
    def share(self) -> str:
        return "everybody"


@dataclass
class Doubling:
    """Doubles numbers; 13 breaks its forward, 99 its collating, 666 fails alone; nothing is computed before ``gate`` opens."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    collated: list[list[int]] = field(default_factory=list)
    reports: list[BatchReport] = field(default_factory=list)

    def prepare(self, request: Numbers) -> list[Number]:
        if any(value < 0 for value in request.values):
            raise InvalidInput("negative")
        return [Number(value) for value in request.values]

    def is_quick(self, request: Numbers) -> bool:
        return request.rows == 1

    def collate(self, items: Sequence[Number]) -> list[Number]:
        self.collated.append([item.value for item in items])
        if any(item.value == 99 for item in items):
            raise ZeroDivisionError
        return list(items)

    def forward(self, items: Sequence[Number]) -> list[int | Exception]:
        self.started.set()
        assert self.gate.wait(10)
        self.batches.append([item.value for item in items])
        if any(item.value == 13 for item in items):
            raise ZeroDivisionError
        return [InvalidInput("beast") if item.value == 666 else 2 * item.value for item in items]

    def computed(self, report: BatchReport) -> None:
        self.reports.append(report)


Numbering = Pipeline[Numbers, Number, int]
LIMITS = Limits(rows=8, batch_tokens=100, queue_seconds=1e6, queue_tokens=2000, seconds=5.0)


@asynccontextmanager
async def running(task: Doubling, limits: Limits = LIMITS, device: Device | None = None) -> AsyncIterator[Numbering]:
    device, threads = device or Device(), ThreadPoolExecutor(2)
    pipeline: Numbering = Pipeline(task, device, threads, task, limits, task.is_quick)
    pipeline.start()
    try:
        yield pipeline
    finally:
        task.gate.set()
        pipeline.stop()
        device.close()
        threads.shutdown()


def opened() -> Doubling:
    task = Doubling()
    task.gate.set()
    return task


async def busy(task: Doubling, pipeline: Numbering, *values: int) -> list[asyncio.Task[object]]:
    """Requests of one number each: the first is on the device, the others wait."""
    first = asyncio.create_task(pipeline.run(Numbers((1,))))
    await asyncio.to_thread(task.started.wait, 10)
    waiting = [asyncio.create_task(pipeline.run(Numbers((value,)))) for value in values]
    while pipeline.depth < len(values):
        await asyncio.sleep(0.001)
    return [first, *waiting]
