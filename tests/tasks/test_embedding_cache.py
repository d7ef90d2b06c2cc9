"""What was embedded is found again, up to a number; what is being embedded is shared by all that bring it."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from service.tasks.embedding_cache import EmbeddingCache, Encodable, not_encoded


class Squares:
    """An encoder of numbers that counts what it is given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def fill(self, cache: EmbeddingCache[int], *numbers: int) -> list[Encodable[int]]:
        entries = [cache.get(bytes([number])) for number in numbers]
        for entry, number in zip(entries, numbers, strict=True):
            entry.claim(lambda number=number: number)  # type: ignore[misc]  # mypy cannot type a lambda's default
        self.encode(cache, not_encoded(entries))
        return entries

    def encode(self, cache: EmbeddingCache[int], entries: list[Encodable[int]]) -> None:
        def encoder(places: list[int]) -> Tensor:
            contents = [entries[place].content for place in places]
            self.seen += contents
            return torch.tensor([[float(content**2)] for content in contents])

        cache.encode(entries, encoder)


def test_each_is_encoded_once_while_it_is_kept() -> None:
    cache, squares = EmbeddingCache[int](2), Squares()
    assert [entry.embedding.item() for entry in squares.fill(cache, 2, 3, 2)] == [4.0, 9.0, 4.0]
    squares.fill(cache, 3, 2)
    assert squares.seen == [2, 3] and (cache.hits, cache.misses) == (3, 2)


def test_the_least_recently_used_goes_first() -> None:
    cache, squares = EmbeddingCache[int](2), Squares()
    for number in (1, 2, 1, 3, 1, 2):
        squares.fill(cache, number)
    assert squares.seen == [1, 2, 3, 2]


def test_a_capacity_of_none_keeps_nothing_and_answers_all_the_same() -> None:
    cache, squares = EmbeddingCache[int](0), Squares()
    assert [squares.fill(cache, 5)[0].embedding.item() for _ in range(2)] == [25.0, 25.0]
    assert squares.seen == [5, 5]


def test_an_embedding_outlives_its_place_in_the_cache_for_whoever_holds_it() -> None:
    cache, squares = EmbeddingCache[int](1), Squares()
    (held,) = squares.fill(cache, 1)
    squares.fill(cache, 2)
    assert held.embedding.item() == 1.0


def test_a_kept_row_holds_neither_its_batch_nor_its_input() -> None:
    cache, squares = EmbeddingCache[int](4), Squares()
    squares.fill(cache, 1, 2, 3)
    gc.collect()
    found = cache.get(bytes([2]))
    assert found.is_encoded and not hasattr(found, "content")
    assert found.embedding.untyped_storage().nbytes() == 4


def test_batches_collated_before_either_ran_encode_what_they_share_once() -> None:
    cache, squares = EmbeddingCache[int](4), Squares()
    first, second = ([cache.get(bytes([number])) for number in numbers] for numbers in ((1, 2), (2, 3)))
    for number, entry in ((1, first[0]), (2, first[1]), (2, second[0]), (3, second[1])):
        entry.claim(lambda number=number: number)  # type: ignore[misc]  # mypy cannot type a lambda's default
    batches = [not_encoded(first), not_encoded(second)]
    assert [len(batch) for batch in batches] == [2, 2]
    for batch in batches:
        squares.encode(cache, batch)
    assert squares.seen == [1, 2, 3]
    assert [entry.embedding.item() for entry in second] == [4.0, 9.0]


def test_threads_that_bring_the_same_wait_for_the_first_to_make_its_content() -> None:
    cache, made, gate = EmbeddingCache[int](4), [], threading.Event()

    def make() -> int:
        made.append(1)
        assert gate.wait(10)
        return 7

    with ThreadPoolExecutor(8) as threads:
        entries = [cache.get(b"same") for _ in range(8)]
        claims = [threads.submit(entry.claim, make) for entry in entries]
        gate.set()
        assert sorted(claim.result() for claim in claims) == [False] * 7 + [True]
    assert len(made) == 1 and len(set(map(id, entries))) == 1 and entries[0].content == 7


def test_content_that_cannot_be_made_is_tried_again_by_the_next() -> None:
    entry = EmbeddingCache[int](1).get(b"broken")

    def fail() -> int:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            entry.claim(fail)
    assert entry.claim(lambda: 1)


def test_what_no_request_holds_any_more_is_forgotten() -> None:
    cache = EmbeddingCache[int](1)
    cache.get(b"left").claim(lambda: 1)
    gc.collect()
    assert cache.get(b"left").claim(lambda: 2) and cache.misses == 2
