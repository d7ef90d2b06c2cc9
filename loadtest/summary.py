"""What a load test found, as locust's process writes it and the command reads it, and which thresholds it missed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

KINDS = ("sentiment", "classify", "vqa")
SWAP_STEPS = ("swap publish", "swap alias", "swap answer", "swap delete")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of request: how many, how many a second, and milliseconds as the client saw them.

    ``server`` has the medians and 95th percentiles of the times that the server reports in its headers.
    """

    kind: str
    requests: int
    failures: int
    rate: float
    p50: float
    p95: float
    p99: float
    server: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole run: ``errors`` has a line for each kind of failure, ``crashes`` one for each exception in the script."""

    endpoints: Sequence[Endpoint]
    total: Endpoint
    errors: Sequence[str] = ()
    crashes: Sequence[str] = ()

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Summary:
        """What :meth:`write` wrote."""
        found = json.loads(file.read_text(encoding="utf-8"))
        endpoints = [Endpoint(**endpoint) for endpoint in found["endpoints"]]
        return cls(endpoints, Endpoint(**found["total"]), found["errors"], found["crashes"])


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a run must reach: failures at most, requests a second at least, p99 at most in ms, kinds that must occur.

    ``p99`` is by kind; ``swap`` stands for every step of a swap.
    """

    failure_ratio: float
    min_rate: float
    p99: Mapping[str, float]
    required: Sequence[str]


def missed(summary: Summary, thresholds: Thresholds) -> list[str]:
    """A line for each threshold that the run missed; empty when it passed."""
    lines = [f"the script failed: {crash}" for crash in summary.crashes]
    total = summary.total
    if total.requests and total.failures / total.requests > thresholds.failure_ratio:
        lines.append(
            f"{total.failures} of {total.requests} requests failed; the threshold is a ratio of {thresholds.failure_ratio:g}"
        )
    if total.rate < thresholds.min_rate:
        lines.append(f"{total.rate:.1f} requests/s; the threshold is {thresholds.min_rate:g}")
    seen = {endpoint.kind for endpoint in summary.endpoints if endpoint.requests > endpoint.failures}
    lines += [f"no {kind} request was answered; the mix asks for them" for kind in thresholds.required if kind not in seen]
    for endpoint in summary.endpoints:
        bar = thresholds.p99.get(endpoint.kind.partition(" ")[0])
        if bar is not None and endpoint.p99 > bar:
            lines.append(f"{endpoint.kind}: p99 {endpoint.p99:.0f} ms; the threshold is {bar:g} ms")
    return lines
