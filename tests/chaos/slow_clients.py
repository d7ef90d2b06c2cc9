"""Connections that never finish what they begin, beside clients that do: nobody loses an answer, or much of a moment."""

from __future__ import annotations

import resource
import time
from statistics import quantiles

import httpx

from tests.support.hostile import HALF_BODY, HALF_HEAD, half_sent

HALF = 500  # heads, and as many bodies
ASKED = 400
MOST = 1.5  # times the 99th percentile of the same client alone


def slow_clients(port: int, half: int = HALF, asked: int = ASKED) -> tuple[str, int, int, str]:
    """What was tried on the server at this port of loopback: its name, requests asked, requests lost, and a remark.

    A request is lost when it is not answered with 200; all are when the 99th percentile becomes :data:`MOST` times what
    it is before and after, when nobody else is there.
    """
    _allow_files(4 * half + 200)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        _ask(client, asked // 4)
        before, lost_before = _ask(client, asked)
        with half_sent(port, [HALF_HEAD] * half + [HALF_BODY] * half):
            beside, lost_beside = _ask(client, asked)
        after, lost_after = _ask(client, asked)
    ratio, lost = beside / max(before, after), lost_before + lost_beside + lost_after
    remark = f"p99 {1e3 * beside:.1f} ms beside them, {1e3 * max(before, after):.1f} ms alone: {ratio:.2f} times"
    name = f"{half} half-sent heads and {half} half-sent bodies"
    return name, 3 * asked, lost if ratio <= MOST else 3 * asked, remark


def _ask(client: httpx.Client, count: int) -> tuple[float, int]:
    """The 99th percentile of so many requests, in seconds, and how many were not answered."""
    seconds, lost = [], 0
    for _ in range(count):
        began = time.perf_counter()
        try:
            lost += client.post("/v1/sentiment", json={"text": "good"}).status_code != httpx.codes.OK
        except httpx.HTTPError:
            lost += 1
        seconds.append(time.perf_counter() - began)
    return quantiles(seconds, n=100)[-1], lost


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard) if hard > 0 else count, hard))
