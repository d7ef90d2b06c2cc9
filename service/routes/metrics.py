"""Prometheus metrics; every label takes one of a small, fixed set of values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.routes.services import Services

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("quickchange_requests", "Answered requests", ["route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "quickchange_request_seconds", "Time to answer", ["route"], registry=self._registry, buckets=SECONDS
        )
        self._dropped = Counter("quickchange_disconnects", "Requests whose client left first", ["route"], registry=self._registry)
        self._in_work = Gauge(
            "quickchange_rows_in_work", "Rows between admission and answer", ["pipeline"], registry=self._registry
        )
        self._waiting = Gauge("quickchange_rows_waiting", "Rows that wait for a batch", ["pipeline"], registry=self._registry)
        self._hits = Gauge(
            "quickchange_embedding_cache_hits", "Embeddings found in the cache", ["cache"], registry=self._registry
        )
        self._misses = Gauge("quickchange_embedding_cache_misses", "Embeddings not found", ["cache"], registry=self._registry)
        self._adapters = Gauge("quickchange_adapters", "Adapters that the server knows", registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def left(self, route: str) -> None:
        """Count a request whose client left before its answer."""
        self._dropped.labels(route).inc()

    def render(self, services: Services) -> bytes:
        """The metrics in Prometheus' text format, gauges read from ``services`` now."""
        for name, pipeline in (("text", services.text), ("vqa", services.vqa)):
            self._in_work.labels(name).set(pipeline.rows)
            self._waiting.labels(name).set(pipeline.depth)
        for name, cache in services.caches.items():
            self._hits.labels(name).set(cache.hits)
            self._misses.labels(name).set(cache.misses)
        self._adapters.set(len(services.lifecycle.registry))
        return generate_latest(self._registry)
