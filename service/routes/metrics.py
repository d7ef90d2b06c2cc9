"""Prometheus metrics; every label takes one of a small, fixed set of values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

from service.engine.observer import BatchReport
from service.routes.readings import Readings
from service.routes.services import Services

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = tuple(float(1 << power) for power in range(10))
TOKENS = tuple(float(1 << power) for power in range(4, 17))


class BatchMetrics:
    """What batches are like, by pipeline."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"quickchange_{name}", help_text, ["pipeline"], registry=registry, buckets=buckets)

        self.rows = histogram("batch_rows", "Rows of a batch", ROWS)
        self.tokens = histogram("batch_tokens", "Tokens of a batch", TOKENS)
        self.padded = histogram("batch_padded_tokens", "What attention makes of them: rows, times the longest's tokens", TOKENS)
        self.adapters = histogram("batch_adapters", "Distinct adapters of a batch", ROWS)
        self.queue = histogram("queue_seconds", "Time of a row between its preparation and its forward", SECONDS)
        self.collate = histogram("collate_seconds", "Time to lay a batch out", SECONDS)
        self.forward = histogram("forward_seconds", "Time of a batch on the device", SECONDS)


class PipelineMetrics:
    """An observer of one pipeline's batches; ``pads`` says that its rows are padded to the longest somewhere."""

    def __init__(self, batches: BatchMetrics, pipeline: str, *, pads: bool) -> None:
        self._rows, self._tokens = batches.rows.labels(pipeline), batches.tokens.labels(pipeline)
        self._padded = batches.padded.labels(pipeline) if pads else None
        self._adapters, self._queue = batches.adapters.labels(pipeline), batches.queue.labels(pipeline)
        self._collate, self._forward = batches.collate.labels(pipeline), batches.forward.labels(pipeline)

    def computed(self, report: BatchReport) -> None:
        """Count a batch."""
        self._rows.observe(report.rows)
        self._tokens.observe(report.tokens)
        if self._padded is not None:
            self._padded.observe(report.rows * report.longest)
        self._adapters.observe(report.shares)
        self._collate.observe(report.collate)
        self._forward.observe(report.forward)
        for seconds in report.waited:
            self._queue.observe(seconds)


class _Answers:
    """The counters of one route and status, found once: looking them up by label costs more than counting."""

    __slots__ = ("count", "seconds")

    def __init__(self, count: Counter, seconds: Histogram) -> None:
        self.count, self.seconds = count, seconds


class Metrics:
    """One server's metrics, in a registry of their own: ``text`` and ``vqa`` observe their pipelines."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("quickchange_requests", "Answered requests", ["route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "quickchange_request_seconds", "Time to answer", ["route"], registry=self._registry, buckets=SECONDS
        )
        self._failures = Counter("quickchange_failures", "Answers that are errors", ["code"], registry=self._registry)
        self._dropped = Counter("quickchange_disconnects", "Requests whose client left first", ["route"], registry=self._registry)
        self._delay = Histogram(
            "quickchange_event_loop_delay_seconds", "How late a timer fires", registry=self._registry, buckets=SECONDS
        )
        self._answers: dict[tuple[str, int], _Answers] = {}
        batches = BatchMetrics(self._registry)
        self.text, self.vqa = PipelineMetrics(batches, "text", pads=True), PipelineMetrics(batches, "vqa", pads=False)
        self.loop_delayed = self._delay.observe
        ProcessCollector(registry=self._registry)

    def watch(self, services: Services) -> None:
        """From now on, read what ``services`` hold whenever metrics are asked for."""
        self._registry.register(Readings(services))

    def answered(self, route: str, status: int, seconds: float, problem: str | None) -> None:
        """Count a request that was answered, by its problem's code if that was an error."""
        answers = self._answers.get((route, status))
        if answers is None:
            answers = _Answers(self._requests.labels(route, str(status)), self._seconds.labels(route))
            self._answers[route, status] = answers
        answers.count.inc()
        answers.seconds.observe(seconds)
        if problem is not None:
            self._failures.labels(problem).inc()

    def left(self, route: str) -> None:
        """Count a request whose client left before its answer."""
        self._dropped.labels(route).inc()

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
