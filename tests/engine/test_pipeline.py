"""Admission, batching, deadlines and isolation, with a task of plain numbers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.pipeline import Limits
from service.errors import DeadlineExceeded, ForwardFailed, InvalidInput, Overloaded
from tests.engine.numbers import Doubling, Numbers, busy, opened, running


def test_outputs_come_in_the_order_of_the_request_with_timing() -> None:
    async def scenario() -> None:
        async with running(opened()) as pipeline:
            answer = await pipeline.run(Numbers((5, 1, 3)))
            assert answer.outputs == [10, 2, 6]
            assert min(answer.timing.prepare, answer.timing.queue, answer.timing.inference) >= 0

    asyncio.run(scenario())


def test_what_waits_while_the_device_is_busy_shares_the_next_batch() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task) as pipeline:
            requests = await busy(task, pipeline, 2, 3, 4)
            task.gate.set()
            await asyncio.gather(*requests)
        assert [sorted(batch) for batch in task.batches] == [[1], [2, 3, 4]]

    asyncio.run(scenario())


def test_a_batch_keeps_to_its_tokens() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task) as pipeline:
            requests = await busy(task, pipeline, 40, 45, 90, 30)
            task.gate.set()
            await asyncio.gather(*requests)
        assert task.batches[1:] == [[40, 45], [90], [30]]

    asyncio.run(scenario())


def test_a_full_pipeline_refuses_at_once_and_serves_again_afterwards() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task) as pipeline:
            requests = await busy(task, pipeline, 1, 1, 1, 1, 1, 1, 1)
            with pytest.raises(Overloaded, match="8 rows are in work and this request has 1; at most 8"):
                await pipeline.run(Numbers((1,)))
            task.gate.set()
            await asyncio.gather(*requests)
            assert pipeline.rows == 0
            assert (await pipeline.run(Numbers((1,)))).outputs == [2]

    asyncio.run(scenario())


def test_a_queue_full_of_tokens_refuses_all_rows_of_a_request() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task, Limits(rows=100, batch_tokens=100, queue_seconds=1e6, queue_tokens=150, seconds=5)) as pipeline:
            requests = await busy(task, pipeline, 90)
            with pytest.raises(Overloaded, match="90 tokens are queued"):
                await pipeline.run(Numbers((10, 60)))
            assert pipeline.depth == 1
            task.gate.set()
            await asyncio.gather(*requests)

    asyncio.run(scenario())


def test_a_request_past_its_deadline_is_answered_and_never_computed() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task, Limits(rows=8, batch_tokens=100, queue_seconds=1e6, queue_tokens=1000, seconds=0.3)) as pipeline:
            requests = await busy(task, pipeline, 7)
            results = await asyncio.gather(*requests, return_exceptions=True)
            assert all(isinstance(result, DeadlineExceeded) for result in results)
            task.gate.set()
            assert (await pipeline.run(Numbers((4,)))).outputs == [8]
        assert [7] not in task.batches and [4] in task.batches

    asyncio.run(scenario())


def test_a_client_that_leaves_takes_its_rows_out_of_the_queue() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task) as pipeline:
            first, gone, stays = await busy(task, pipeline, 50, 60)
            gone.cancel()
            task.gate.set()
            await asyncio.gather(first, stays)
            assert pipeline.rows == 0
        assert 50 not in [value for batch in task.batches for value in batch]

    asyncio.run(scenario())


def test_a_row_that_breaks_its_batch_fails_alone() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task) as pipeline:
            requests = await busy(task, pipeline, 13, 5, 666, 6)
            task.gate.set()
            results = await asyncio.gather(*requests, return_exceptions=True)
            kinds = [type(result) if isinstance(result, Exception) else result.outputs for result in results]  # type: ignore[attr-defined]
            assert kinds == [[2], ForwardFailed, [10], InvalidInput, [12]]
            assert (await pipeline.run(Numbers((9,)))).outputs == [18]

    asyncio.run(scenario())


def test_an_error_of_prepare_reaches_the_caller_and_frees_its_place() -> None:
    async def scenario() -> None:
        async with running(opened()) as pipeline:
            with pytest.raises(InvalidInput, match="negative"):
                await pipeline.run(Numbers((-1, 2)))
            assert pipeline.rows == 0

    asyncio.run(scenario())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60).filter(lambda n: n != 13), min_size=1, max_size=4), min_size=1, max_size=12))
def test_any_traffic_is_answered_exactly(requests: list[list[int]]) -> None:
    async def scenario() -> None:
        async with running(
            opened(), Limits(rows=1000, batch_tokens=70, queue_seconds=1e6, queue_tokens=10_000, seconds=10)
        ) as pipeline:
            answers = await asyncio.gather(*(pipeline.run(Numbers(tuple(values))) for values in requests))
            assert [list(answer.outputs) for answer in answers] == [[2 * value for value in values] for values in requests]

    asyncio.run(scenario())
