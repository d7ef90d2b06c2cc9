"""How much may wait: what the device computes in a bounded time, shared out so that no adapter's flood shuts others out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from service.engine.queue import FairQueue, Row
from service.errors import Overloaded

WEIGHT = 0.2  # of the last batch in the rate that is remembered
BATCHES = 1  # that may wait at any rate: small batches cost throughput, and a slow model should not refuse a few clients
SPARE = 1.25  # times the limit is the room whose free part counts, so that something is free until the door closes
WINDOW, MANY = 0.2, 0.2  # seconds over which is counted who asks (twice, if let in), and a share of refusals beyond capacity
NARROW = 1 / 3  # of the limit after such a window
PART = 3  # times what is free may be one share's: 15/16 of the limit, when it is alone


class Admission:
    """Decides whether rows may wait; the limit follows the rate at which batches are computed.

    At most ``seconds`` of work may wait, but never less than a batch, and never more than ``tokens``; beyond that the door is
    closed to everyone. A burst may fill all of it; beyond capacity, whoever is let in is not to wait behind a queue that never
    empties, and the limit is a third (as in controlled delay, Nichols and Jacobson, 2012). Within it a share may hold a
    multiple of what is free (dynamic thresholds, Choudhury and Hahne, 1998): all that it likes while little waits, and less
    than the limit however much it sends. Counts may miss a request where threads meet.
    """

    def __init__(self, seconds: float, tokens: int, batch_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._tokens, self._least = seconds, tokens, min(tokens, BATCHES * batch_tokens)
        self._rate, self._clock = 0.0, clock
        self._since, self._asked, self._refused, self._narrow = clock(), 0, 0, False

    @property
    def limit(self) -> int:
        """Tokens that may wait now; before the first batch, the rate is not known and sets no limit."""
        if not self._rate:
            return self._tokens
        whole = min(self._tokens, max(self._least, int(self._seconds * self._rate)))
        return int(NARROW * whole) if self._narrow else whole

    def served(self, tokens: int, seconds: float) -> None:
        """Note a batch that was computed."""
        rate = tokens / max(seconds, 1e-6)
        self._rate += (WEIGHT if self._rate else 1.0) * (rate - self._rate)

    def refuses(self, waiting: int) -> bool:
        """Whether no further row may join so many waiting tokens; every time is counted."""
        age = self._clock() - self._since
        if age >= WINDOW:
            self._narrow = age < 2 * WINDOW and self._refused > MANY * self._asked
            self._since, self._asked, self._refused = self._since + age, 0, 0
        refused = waiting >= self.limit
        self._asked += 1
        self._refused += refused
        return refused

    def check(self, queue: FairQueue[Row], rows: Sequence[Row]) -> None:
        """Raise :class:`Overloaded` unless these rows may join the queue; where nothing waits, anything may."""
        if not queue.tokens:
            return
        costs: Counter[Hashable] = Counter()
        for row in rows:
            costs[row.share] += row.tokens
        if self.refuses(queue.tokens) or queue.tokens + costs.total() > self._tokens:
            waiting = f"{queue.tokens} tokens are queued and this request has {costs.total()}"
            raise Overloaded(f"{waiting}; at most {self.limit} may wait")
        room = int(PART * (SPARE * self.limit - queue.tokens))
        for share, cost in costs.items():
            held = queue.held(share)
            if held and held + cost > room:
                waiting = f"{held} tokens of this adapter are queued and this request has {cost}"
                raise Overloaded(f"{waiting}; at most {room} may wait beside {queue.tokens - held} of others")
