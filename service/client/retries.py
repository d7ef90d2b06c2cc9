"""When a call is worth another attempt, and after how long; shared by both clients, which do the waiting."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

BUSY = (429, 503)  # both say that nothing was done
FIRST, LONGEST = 0.2, 5.0  # seconds between attempts where the server does not say how long
UNANSWERED = 3  # attempts without an answer
NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

Outcome = httpx.Response | httpx.RequestError


class Retries:
    """The attempts at one call, within ``patience`` seconds of its start.

    ``repeatable`` is whether a call whose answer was lost may be made once more: the server may have done it.
    """

    def __init__(self, patience: float, *, repeatable: bool) -> None:
        self._repeatable, self._end, self._attempts = repeatable, time.monotonic() + patience, 0
        self._unanswered = 0

    def pause(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next attempt, or None where this outcome is the last word."""
        self._attempts += 1
        seconds = min(LONGEST, FIRST * 2 ** (self._attempts - 1))
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in BUSY:
                return None
            seconds = _retry_after(outcome.headers.get("retry-after", ""), seconds)
        else:
            self._unanswered += 1
            if self._unanswered >= UNANSWERED or not (self._repeatable or isinstance(outcome, NOTHING_SENT)):
                return None
        return seconds if time.monotonic() + seconds < self._end else None


def _retry_after(value: str, default: float) -> float:
    """The seconds in a ``Retry-After`` header, which may be a date; never less than a first pause."""
    if value.isdecimal():
        return max(FIRST, float(value[:9]))
    try:
        return max(FIRST, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return default
