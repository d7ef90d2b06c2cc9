"""What may wait: a bounded time of work, never less than a batch, and no share may shut the others out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.admission import WINDOW, Admission
from service.engine.queue import FairQueue
from service.errors import Overloaded
from tests.engine.test_queue import Row

BATCH = 100  # tokens


def admission(rate: int = 1000, seconds: float = 0.5, tokens: int = 10_000) -> Admission:
    """With batches of 100 tokens, at a known rate of tokens a second."""
    made = Admission(seconds, tokens, BATCH)
    made.served(rate, 1.0)
    return made


def admitted(admission: Admission, queue: FairQueue[Row], *rows: Row) -> bool:
    try:
        admission.check(queue, rows)
    except Overloaded:
        return False
    for row in rows:
        queue.push(row)
    return True


@pytest.mark.parametrize(
    ("rate", "seconds", "tokens", "limit"),
    [(1000, 0.5, 10_000, 500), (1000, 0.01, 10_000, 100), (1000, 0.5, 300, 300), (10**6, 0.5, 10_000, 10_000)],
)
def test_the_limit_is_a_time_at_the_measured_rate(rate: int, seconds: float, tokens: int, limit: int) -> None:
    assert admission(rate, seconds, tokens).limit == limit
    assert Admission(seconds, tokens, BATCH).limit == tokens


def test_the_rate_follows_what_is_measured() -> None:
    made = admission(1000)
    for _ in range(30):
        made.served(50, 0.1)
    assert 250 <= made.limit <= 252


def test_a_flood_of_one_share_leaves_room_for_others() -> None:
    made, queue = admission(), FairQueue[Row]()
    for _ in range(100):
        admitted(made, queue, Row("flood", 10))
    assert queue.tokens < made.limit and not made.refuses(queue.tokens)
    assert admitted(made, queue, Row("calm", 10))
    with pytest.raises(Overloaded, match=r"at most [0-9]+ may wait beside 10 of others"):
        made.check(queue, [Row("flood", 10)])


def test_while_little_waits_a_share_may_hold_what_it_likes() -> None:
    made, queue = admission(), FairQueue[Row]()
    assert all(admitted(made, queue, Row("few", 10)) for _ in range(5))
    assert all(admitted(made, queue, Row("many", 10)) for _ in range(30))


def test_floods_of_many_shares_close_the_door() -> None:
    made, queue = admission(), FairQueue[Row]()
    for _ in range(100):
        for share in "abcde":
            admitted(made, queue, Row(share, 10))
    assert made.refuses(queue.tokens) and queue.tokens == made.limit
    assert not admitted(made, queue, Row("new", 10))


def test_beyond_capacity_a_third_may_wait_until_few_are_refused() -> None:
    now = [0.0]
    made = Admission(0.5, 10_000, BATCH, clock=lambda: now[0])
    made.served(1000, 1.0)

    def window(refused: int) -> int:
        """Ten requests in a window, so many of them refused; what may wait after that."""
        for number in range(10):
            assert made.refuses(500 if number < refused else 0) == (number < refused)
        now[0] += 1.01 * WINDOW
        made.refuses(0)
        return made.limit

    assert [window(refused) for refused in (2, 7, 9, 1, 0)] == [500, 166, 166, 500, 500]
    window(9)
    now[0] += 5.0  # nobody asks for a while
    assert not made.refuses(400)


def test_where_nothing_waits_anything_may() -> None:
    made, queue = admission(tokens=300), FairQueue[Row]()
    assert admitted(made, queue, *(Row("large", 50) for _ in range(40)))
    with pytest.raises(Overloaded, match="2000 tokens are queued and this request has 1; at most 300 may wait"):
        made.check(queue, [Row("other", 1)])


@given(arriving=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 60)), max_size=200))
def test_single_rows_never_wait_for_longer_than_the_limit(arriving: list[tuple[str, int]]) -> None:
    made, queue = admission(), FairQueue[Row]()
    for share, tokens in arriving:
        held, waiting = queue.held(share), queue.tokens
        found = admitted(made, queue, Row(share, tokens))
        assert found or held or waiting >= made.limit
        assert queue.tokens < made.limit + 60
