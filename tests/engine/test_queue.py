"""Fair order: no row is lost, budgets are kept, nobody starves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.queue import FairQueue

BUDGET = 100
LONGEST = 130


@dataclass(eq=False)
class Row:
    share: str
    tokens: int


def filled(*rows: Row) -> FairQueue[Row]:
    queue = FairQueue[Row]()
    for row in rows:
        queue.push(row)
    return queue


def tokens(rows: list[Row]) -> int:
    return sum(row.tokens for row in rows)


rows_of_any_share = st.builds(Row, st.sampled_from("abcde"), st.integers(1, LONGEST))
# A row arrives, the newest or the oldest waiting row's client leaves, or a batch is taken.
events = st.lists(st.one_of(rows_of_any_share, st.sampled_from(["newest leaves", "oldest leaves", "batch"])), max_size=80)


@settings(max_examples=300, deadline=None)
@given(events)
def test_in_any_order_of_events_no_row_is_lost_or_taken_twice_and_budgets_are_kept(happened: list[Row | str]) -> None:
    queue, waiting, batches = FairQueue[Row](), list[Row](), list[list[Row]]()
    for event in [*happened, *["batch"] * len(happened)]:
        if isinstance(event, Row):
            queue.push(event)
            waiting.append(event)
        elif event == "batch":
            batches.append(queue.take(BUDGET))
            for row in batches[-1]:
                waiting.remove(row)
        elif waiting:
            assert queue.remove(waiting.pop(-1 if event == "newest leaves" else 0))
        assert (len(queue), queue.tokens) == (len(waiting), tokens(waiting))
        assert {share: queue.held(share) for share in "abcde"} == {
            s: tokens([r for r in waiting if r.share == s]) for s in "abcde"
        }
    assert waiting == [] and queue.take(BUDGET) == []
    assert all(tokens(batch) <= BUDGET or len(batch) == 1 for batch in batches)


def test_a_row_is_not_there_twice_nor_after_it_was_taken() -> None:
    row = Row("a", 10)
    queue = filled(row)
    assert queue.take(BUDGET) == [row]
    assert not queue.remove(row) and not queue.remove(Row("b", 1))


def test_a_batch_ends_before_the_first_row_that_does_not_fit() -> None:
    rows = [Row("a", 40), Row("a", 45), Row("a", 30), Row("a", 5)]
    queue = filled(*rows)
    assert [queue.take(BUDGET), queue.take(BUDGET)] == [rows[:2], rows[2:]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=30, max_size=60), st.integers(1, LONGEST), st.integers(0, 6))
def test_a_lone_row_is_in_the_next_batch_however_deep_anothers_queue(flood: list[int], length: int, served: int) -> None:
    queue = filled(*(Row("flood", tokens) for tokens in flood), *(Row("flood", 60) for _ in range(3)))
    for _ in range(served):
        queue.take(BUDGET)
    lone = Row("lone", length)
    queue.push(lone)
    assert lone in queue.take(BUDGET)


@settings(deadline=None)
@given(st.data())
def test_shares_that_always_have_rows_waiting_are_served_alike(data: st.DataObject) -> None:
    names = data.draw(st.sampled_from(["ab", "abc", "abcde"]))
    lengths = {name: data.draw(st.integers(1, 60)) for name in names}
    queue, served = FairQueue[Row](), Counter[str]()
    for _ in range(60):
        for name in names:
            while queue.held(name) < 4 * BUDGET:
                queue.push(Row(name, lengths[name]))
        for row in queue.take(BUDGET):
            served[row.share] += row.tokens
        assert max(served.values()) - min(served[name] for name in names) <= 2 * BUDGET


@settings(deadline=None)
@given(st.lists(rows_of_any_share, min_size=1, max_size=60), st.integers(0, 59))
def test_a_row_waits_for_its_share_and_as_much_of_each_other_whatever_arrives_later(rows: list[Row], which: int) -> None:
    queue, watched = filled(*rows), rows[which % len(rows)]
    bound = len("abcde") * (queue.held(watched.share) + LONGEST + BUDGET)
    served, batch = 0, queue.take(BUDGET)
    while watched not in batch:
        served += tokens(batch)
        assert served <= bound
        for share in "abcde":
            queue.push(Row(share, 1 + served * 37 % LONGEST))
        batch = queue.take(BUDGET)


def test_a_share_that_was_served_a_lot_does_not_come_back_as_if_it_were_new() -> None:
    queue = filled(*(Row("steady", 50) for _ in range(40)))
    served = Counter[str]()
    for _ in range(16):
        queue.push(Row("again", 50))
        queue.push(Row("again", 50))
        for row in queue.take(BUDGET):
            served[row.share] += row.tokens
    assert abs(served["again"] - served["steady"]) <= 2 * BUDGET
