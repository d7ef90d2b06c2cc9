"""A budget of bytes that holds whatever is kept, used, dropped or made meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from service.store.selector import Ref
from service.tasks.tier import Tier


class Box:
    """A value of a size."""

    def __init__(self, size: int = 10) -> None:
        self.size = size


def ref(number: int) -> Ref:
    return Ref("a", number)


def put(tier: Tier[Box], number: int, size: int = 10) -> Box | None:
    box = tier.admit(size, lambda: Box(size))
    if box is not None:
        tier.keep(ref(number), box)
    return box


def kept(tier: Tier[Box]) -> list[int]:
    return [number for number in range(1, 100) if ref(number) in tier]


def test_the_least_recently_used_goes_first_and_only_as_many_as_must() -> None:
    tier: Tier[Box] = Tier(30)
    for number in (1, 2, 3):
        assert put(tier, number)
    assert tier.get(ref(1))
    assert put(tier, 4) and kept(tier) == [1, 3, 4]
    assert put(tier, 5, 20) and kept(tier) == [4, 5]
    assert (tier.bytes, tier.loads, tier.evictions, len(tier)) == (30, 5, 3, 2)


def test_what_is_in_use_stays_and_what_is_idle_goes_instead() -> None:
    tier: Tier[Box] = Tier(30)
    first = put(tier, 1)
    for number in (2, 3, 4):
        put(tier, number)
    assert kept(tier) == [1, 3, 4] and tier.get(ref(1)) is first


def test_what_is_pinned_stays() -> None:
    tier: Tier[Box] = Tier(30)
    tier.pinned = frozenset({ref(1)})
    for number in range(1, 9):
        assert put(tier, number)
    assert kept(tier) == [1, 7, 8]


def test_a_value_counts_until_nobody_uses_it_any_more() -> None:
    tier: Tier[Box] = Tier(30)
    used = put(tier, 1, 30)
    tier.drop(ref(1))
    assert used and kept(tier) == [] and tier.bytes == 30
    assert put(tier, 2) is None
    del used
    assert tier.bytes == 0 and put(tier, 2)


@pytest.mark.parametrize(("excess", "more"), [(0.0, 0), (0.5, 1), (1.0, 3)])
def test_where_everything_is_in_use_there_is_room_for_the_excess_and_no_more(excess: float, more: int) -> None:
    tier: Tier[Box] = Tier(30, excess)
    used = [put(tier, number) for number in range(1, 10)]
    assert sum(box is not None for box in used) == 3 + more
    assert tier.bytes == 10 * (3 + more) and tier.evictions == 0


def test_a_replaced_value_is_counted_as_long_as_it_is_used() -> None:
    tier: Tier[Box] = Tier(30)
    old = put(tier, 1)
    assert put(tier, 1) is not old and tier.bytes == 20
    del old
    assert tier.bytes == 10


def test_room_for_a_value_that_was_not_made_is_given_back() -> None:
    def fail() -> Box:
        raise RuntimeError("no")

    tier: Tier[Box] = Tier(10)
    with pytest.raises(RuntimeError):
        tier.admit(10, fail)
    assert tier.bytes == 0 and put(tier, 1)


def test_the_budget_holds_while_threads_take_use_and_drop_at_random() -> None:
    tier: Tier[Box] = Tier(400)
    alive, most, lock = 0, 0, threading.Lock()

    class Counted(Box):
        def __init__(self, size: int) -> None:
            nonlocal alive, most
            super().__init__(size)
            with lock:
                alive += size
                most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= self.size

    def work(seed: int) -> int:
        random, refused = Random(seed), 0
        for _ in range(3000):
            number, size = random.randrange(60), random.choice((5, 10, 20))
            box = tier.get(ref(number))
            if box is None:
                box = tier.admit(size, lambda size=size: Counted(size))  # type: ignore[misc]  # mypy cannot type a lambda's default
                if box is None:
                    refused += 1
                    continue
                tier.keep(ref(number), box)
            if random.random() < 0.05:
                tier.drop(ref(number))
        return refused

    with ThreadPoolExecutor(8) as threads:
        refused = sum(threads.map(work, range(8)))
    assert refused == 0 and most <= 400
    assert tier.bytes == alive == sum(box.size for number in range(60) if (box := tier.get(ref(number))))
