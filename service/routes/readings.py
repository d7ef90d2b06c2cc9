"""Metrics that are read off the parts of the server when somebody asks, instead of being counted along the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.engine.pipeline import Pipeline
from service.routes.services import Services


class Readings(Collector):
    """A collector of what pipelines, memory and caches hold and have counted."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """The families with their present values."""
        pipelines: dict[str, Pipeline[Any, Any, Any]] = {"text": self._services.text, "vqa": self._services.vqa}
        yield _gauge("rows_in_work", "Rows between admission and answer", "pipeline", {n: p.rows for n, p in pipelines.items()})
        yield _gauge("rows_waiting", "Rows that wait for a batch", "pipeline", {n: p.depth for n, p in pipelines.items()})
        yield from self._memory()
        yield from self._caches()
        totals = [one.totals() for one in self._services.comparisons.values()]
        kinds = {kind: sum(total[kind] for total in totals) for kind in ("rows", "agreed", "failed")}
        yield _gauge("shadow_rows", "Rows that shadows were asked for, by what came of them", "outcome", kinds)
        if self._services.training is not None:
            states = self._services.training.jobs.counts()
            yield _gauge("training_jobs", "Training jobs that are known", "state", {str(state): n for state, n in states.items()})
        known = len(self._services.lifecycle.registry)  # not the list, which would read every adapter's folder
        yield GaugeMetricFamily("quickchange_adapters", "Adapters that the server knows", known)

    def _memory(self) -> Iterable[Metric]:
        residency = self._services.lifecycle.residency
        tiers = {"device": residency.device, "host": residency.host}
        yield _counter("adapter_loads", "Adapter versions that came", "memory", {n: t.loads for n, t in tiers.items()})
        yield _counter("adapter_evictions", "Those that made room", "memory", {n: t.evictions for n, t in tiers.items()})
        yield _gauge("adapters_loaded", "Adapter versions in memory", "memory", {n: len(t) for n, t in tiers.items()})
        yield _gauge("adapter_bytes", "What they take", "memory", {n: t.bytes for n, t in tiers.items()})

    def _caches(self) -> Iterable[Metric]:
        caches = self._services.caches
        yield _counter("embedding_cache_hits", "Embeddings found in the cache", "cache", {n: c.hits for n, c in caches.items()})
        yield _counter("embedding_cache_misses", "Embeddings not found", "cache", {n: c.misses for n, c in caches.items()})
        yield _gauge("embedding_cache_bytes", "Embeddings on the device", "cache", {n: c.nbytes for n, c in caches.items()})


def _gauge(name: str, help_text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"quickchange_{name}", help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, help_text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"quickchange_{name}", help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
