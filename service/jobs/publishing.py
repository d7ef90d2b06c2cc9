"""What becomes of a trained bundle: past the gate, published as an upload is, and an alias pointed at it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from service.errors import QuickchangeError, RequirementNotMet, StoreFull, Unavailable
from service.jobs.job import Fault, Job, Order, Result
from service.store.alias import Target, metric_of
from service.store.bundle import Bundle, Manifest, read_bundle
from service.tasks.lifecycle import Lifecycle

MOST_MOVES = 1000  # of an alias that are looked through


def publish(job: Job, folder: Path, lifecycle: Lifecycle) -> tuple[Result | None, Fault | None]:
    """Publish the bundle in ``folder`` for a job; doing it twice does it once.

    Returns what came of it and why it went no further. Raises :class:`Unavailable` and :class:`StoreFull`, after which
    it is worth another attempt.
    """
    result: Result | None = None
    try:
        bundle = read_bundle(folder)
        result = Result(digest=bundle.manifest.digest, metrics=bundle.manifest.metrics)
        check_gate(job.order, bundle.manifest)
        version = _version(job.order, bundle, lifecycle)
        result = result.model_copy(update={"version": version})
        if job.order.alias is not None:
            _point(job, job.order.alias, version, lifecycle)
            result = result.model_copy(update={"alias": job.order.alias})
    except (Unavailable, StoreFull):
        raise
    except QuickchangeError as error:
        return result, Fault(code=error.code, detail=str(error))
    return result, None


def check_gate(order: Order, manifest: Manifest) -> None:
    """Raise :class:`RequirementNotMet` with every metric that is below the job's gate."""
    missed = []
    for name, least in (order.gate or {}).items():
        value = metric_of(manifest, name)
        if value is None:
            known = ", ".join(sorted({metric for values in manifest.metrics.values() for metric in values}))
            missed.append(f"the gate asks for {name}, which was not measured; measured: {known}")
        elif not value >= least:  # a metric that is not a number passes no gate
            missed.append(f"{name} is {value:.4g}, and the gate requires {least:.4g}")
    if missed:
        raise RequirementNotMet("; ".join(missed))


def _version(order: Order, bundle: Bundle, lifecycle: Lifecycle) -> int:
    ref, _ = lifecycle.publish(order.name, bundle, None, order.who)
    return ref.version


def _point(job: Job, alias: str, version: int, lifecycle: Lifecycle) -> None:
    """Move the alias, unless a server that was killed here has done that already: others may have moved it on."""
    moves = lifecycle.registry.records.history(job.order.name, alias, MOST_MOVES)
    since: datetime = job.order.created
    if any(move.at >= since and move.target is not None and version in move.target.split for move in moves):
        return
    lifecycle.set_alias(job.order.name, alias, Target.at(version), require=job.order.require, who=job.order.who)
