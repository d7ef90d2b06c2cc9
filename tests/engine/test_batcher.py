"""What the device is given, and when: turns between pipelines, batches ahead of time, rows that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.engine.device import Device
from service.engine.pipeline import Limits
from service.errors import ForwardFailed
from tests.engine.numbers import Doubling, Numbers, busy, opened, running

ROOMY = Limits(rows=1000, batch_tokens=100, queue_seconds=1e6, queue_tokens=100_000, seconds=10.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_flood_of_one_pipeline_delays_another_by_two_batches_at_most() -> None:
    async def scenario() -> None:
        device, flood, calm = Device(), Doubling(), Doubling()
        flood.gate = calm.gate
        flood.batches = calm.batches
        async with running(flood, ROOMY, device) as flooded, running(calm, ROOMY, device) as other:
            flooding = await busy(flood, flooded, *[90] * 30)
            single = [asyncio.create_task(other.run(Numbers((value,)))) for value in (2, 3)]
            await until(lambda: other.depth == 2)
            calm.gate.set()
            await asyncio.gather(*flooding, *single)
        assert flood.batches[0] == [1] and [2, 3] in flood.batches[:3]

    asyncio.run(scenario())


def test_two_floods_take_turns() -> None:
    async def scenario() -> None:
        device, left, right = Device(), Doubling(), Doubling()
        left.gate, left.batches = right.gate, right.batches
        async with running(left, ROOMY, device) as one, running(right, ROOMY, device) as other:
            floods = await busy(left, one, *[90] * 20)
            floods += [asyncio.create_task(other.run(Numbers((80,)))) for _ in range(20)]
            await until(lambda: other.depth == 20)
            right.gate.set()
            await asyncio.gather(*floods)
        assert left.batches[1:] == [[80], [90]] * 20

    asyncio.run(scenario())


def test_the_next_batch_is_collated_while_one_runs_once_there_is_plenty() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task, ROOMY) as pipeline:
            requests = await busy(task, pipeline, 60)
            assert task.collated == [[1]]
            requests.append(asyncio.create_task(pipeline.run(Numbers((60,)))))
            await until(lambda: len(task.collated) == 2)
            assert task.batches == [] and pipeline.depth == 2
            task.gate.set()
            await asyncio.gather(*requests)
            assert pipeline.depth == 0
        assert task.batches == task.collated == [[1], [60], [60]]

    asyncio.run(scenario())


def test_the_next_batch_is_collated_as_soon_as_it_is_as_large_as_the_one_that_runs() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task, ROOMY) as pipeline:
            requests = [asyncio.create_task(pipeline.run(Numbers((50,))))]
            await asyncio.to_thread(task.started.wait, 10)
            requests.append(asyncio.create_task(pipeline.run(Numbers((49,)))))
            await until(lambda: pipeline.depth == 1)
            assert task.collated == [[50]]
            requests.append(asyncio.create_task(pipeline.run(Numbers((2,)))))
            await until(lambda: len(task.collated) == 2)
            task.gate.set()
            await asyncio.gather(*requests)
        assert task.batches == [[50], [49, 2]]

    asyncio.run(scenario())


def test_a_client_that_leaves_after_its_batch_was_collated_is_not_computed() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task, ROOMY) as pipeline:
            first, gone, *others = await busy(task, pipeline, 40, 41, 42, 43, 44)
            await until(lambda: task.collated[1:] == [[40, 41]])
            gone.cancel()
            task.gate.set()
            await asyncio.gather(first, *others)
            assert (pipeline.rows, pipeline.depth) == (0, 0)
        assert task.batches[:2] == [[1], [41]]

    asyncio.run(scenario())


def test_rows_whose_deadline_passes_while_they_wait_in_a_collated_batch_are_not_computed() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(
            task, Limits(rows=100, batch_tokens=100, queue_seconds=1e6, queue_tokens=1000, seconds=0.3)
        ) as pipeline:
            requests = await busy(task, pipeline, 40, 41, 42, 43, 44)
            results = await asyncio.gather(*requests, return_exceptions=True)
            assert [type(result).__name__ for result in results] == ["DeadlineExceeded"] * 6
            task.gate.set()
            assert (await pipeline.run(Numbers((4,)))).outputs == [8]
            assert pipeline.depth == 0
        assert task.batches == [[1], [4]]

    asyncio.run(scenario())


@pytest.mark.parametrize("bad", [13, 99])
def test_a_failing_batch_is_run_again_by_halves(bad: int) -> None:
    async def scenario() -> None:
        task = opened()
        async with running(
            task, Limits(rows=100, batch_tokens=1000, queue_seconds=1e6, queue_tokens=1000, seconds=10.0)
        ) as pipeline:
            with pytest.raises(ForwardFailed):
                await pipeline.run(Numbers((1, 2, 3, bad)))
            assert (await pipeline.run(Numbers((1,)))).outputs == [2]
        assert [batch for batch in task.batches if bad not in batch] == [[1, 2], [3], [1]]

    asyncio.run(scenario())


def test_stopping_cancels_what_waits_and_what_runs() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task, ROOMY) as pipeline:
            requests = await busy(task, pipeline, *[60] * 6)
            pipeline.stop()
            results = await asyncio.gather(*requests, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(scenario())


def test_every_batch_is_reported() -> None:
    async def scenario() -> None:
        task = Doubling()
        async with running(task) as pipeline:
            requests = await busy(task, pipeline, 5, 7)
            task.gate.set()
            await asyncio.gather(*requests)
        first, second = task.reports
        assert (first.rows, first.tokens, first.longest, first.shares) == (1, 1, 1, 1)
        assert (second.rows, second.tokens, second.longest, second.shares) == (2, 12, 7, 1)
        assert len(second.waited) == 2 and min(second.waited) > 0
        assert first.forward > 0 and first.collate >= 0

    asyncio.run(scenario())
