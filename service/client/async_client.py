"""The client for programs that do other things meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx

from service.client import calls, flows, training
from service.client.call import Call
from service.client.retries import Outcome
from service.client.training import Following, JobEvent
from service.client.transport import LOCAL, dress, options, request, retries, settle
from service.routes.schemas import AdapterView
from service.routes.training_views import JobView

T = TypeVar("T")
P = ParamSpec("P")


def _method(build: Callable[P, Call[T]], *, reads_files: bool = False) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    """The method that makes the call which ``build`` describes, on a thread where it reads files for that."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = await asyncio.to_thread(build, *args, **kwargs) if reads_files else build(*args, **kwargs)
        return await self.send(call)

    dress(method, build)
    return method


class AsyncClient:
    """:class:`service.client.Client` with methods to be awaited."""

    def __init__(self, url: str = LOCAL, key: str | None = None, *, timeout: float = 60.0, patience: float = 30.0) -> None:
        self._url, self._patience = url, patience
        self._http = httpx.AsyncClient(**options(url, key, timeout))

    sentiment, sentiment_many = _method(calls.sentiment), _method(calls.sentiment_many)
    classify, classify_many = _method(calls.classify), _method(calls.classify_many)
    vqa, vqa_many = _method(calls.vqa, reads_files=True), _method(calls.vqa_many, reads_files=True)
    adapter, push, delete = _method(calls.adapter), _method(calls.push, reads_files=True), _method(calls.delete)
    alias, set_alias = _method(calls.alias), _method(calls.set_alias)
    rollback, remove_alias = _method(calls.rollback), _method(calls.remove_alias)
    audit, ready = _method(calls.audit), _method(calls.ready)
    submit_job, job = _method(training.submit_job, reads_files=True), _method(training.job)
    cancel_job = _method(training.cancel_job)

    async def adapters(self) -> AsyncIterator[AdapterView]:
        """Every adapter that the server knows, by name; pages are asked for as they are needed."""
        page = await self.send(calls.page())
        for adapter in page.adapters:
            yield adapter
        while page.next is not None:
            page = await self.send(calls.page(page.next))
            for adapter in page.adapters:
                yield adapter

    async def jobs(self) -> AsyncIterator[JobView]:
        """Every training job, the newest first; pages are asked for as they are needed."""
        page = await self.send(training.job_page())
        for job in page.jobs:
            yield job
        while page.next is not None:
            page = await self.send(training.job_page(page.next))
            for job in page.jobs:
                yield job

    async def follow_job(self, job: str) -> AsyncIterator[JobEvent]:
        """The events of a training job as they come, up to its end; a lost connection is made anew."""
        following = Following(job, self._patience)
        while not following.ended:
            outcome: Outcome = httpx.ReadError("the events ended before the job did")
            try:
                async with self._http.stream(**request(following.call())) as response:
                    if response.is_success:
                        async for line in response.aiter_lines():
                            if (event := following.read(line)) is not None:
                                yield event
                    else:
                        await response.aread()
                        outcome = response
            except httpx.RequestError as error:
                outcome = error
            if not following.ended:
                if (pause := following.pause(outcome)) is None:
                    settle(outcome, self._url)
                await asyncio.sleep(pause or 0)

    async def pull(self, selector: str, folder: Path | None = None) -> Path:
        """:func:`service.client.flows.pull`, whose reading and writing is done on a thread."""
        flow = flows.pull(selector, folder)
        step = await asyncio.to_thread(flows.advance, flow)
        while isinstance(step, Call):
            step = await asyncio.to_thread(flows.advance, flow, await self.send(step))
        return step.result

    async def send(self, call: Call[T]) -> T:
        """Make a call and read its answer."""
        return call.parse(await self.fetch(call))

    async def fetch(self, call: Call[T]) -> httpx.Response:
        """Make a call, and return its answer as it came."""
        attempts = retries(call, self._patience)
        while (pause := attempts.pause(outcome := await self._attempt(call))) is not None:
            await asyncio.sleep(pause)
        return settle(outcome, self._url)

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _attempt(self, call: Call[T]) -> Outcome:
        try:
            return await self._http.request(**request(call))
        except httpx.RequestError as error:
            return error
