"""Probes and metrics: ``/health/live``, ``/health/ready`` and ``/metrics``."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from service.routes.keys import PUBLIC, READ
from service.routes.metrics import Metrics
from service.routes.problems import documented
from service.routes.schemas import Health
from service.routes.services import Services
from service.routes.views import Readiness


@get("/health/live", opt={"scope": PUBLIC}, tags=["health"], summary="Is the process alive?", sync_to_thread=False)
def live() -> Health:
    """200 as long as the event loop turns."""
    return Health(status="alive")


@get("/health/ready", opt={"scope": PUBLIC}, tags=["health"], summary="Does it take requests?", sync_to_thread=False)
def ready(services: NamedDependency[Services]) -> Readiness:
    """200, or 503 as soon as the server begins to drain; `degraded` while changes are not possible but answers are."""
    services.lifetime.check()
    problems = list(services.watcher.problems)
    return Readiness(status="degraded" if problems else "ready", problems=problems)


@get(
    "/metrics",
    opt={"scope": READ},
    tags=["health"],
    summary="Prometheus metrics",
    media_type="text/plain; version=0.0.4",
    responses=documented(401, 403, 429),
    sync_to_thread=False,
)
def metrics(metrics: NamedDependency[Metrics]) -> Response[bytes]:
    """Requests, failures, batches, queues, adapters in memory, caches, the event loop's delay, the process."""
    return Response(metrics.render())
