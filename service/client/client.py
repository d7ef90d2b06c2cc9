"""The client for programs that wait for each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method that makes the call which ``build`` describes."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    dress(method, build)
    return method


class Client:
    """A connection to the server at ``url``; ``key`` is an API key, ``timeout`` the seconds to wait for an answer.

    While the server is busy (429, 503) a call is made again when the server says, and so is one without an answer where
    that is safe, within ``patience`` seconds in all. Methods raise :class:`ServerError` when the server refuses, or does
    not answer, and :class:`InvalidInput` for arguments that cannot be sent.
    """

    def __init__(self, url: str = LOCAL, key: str | None = None, *, timeout: float = 60.0, patience: float = 30.0) -> None:
        self._url, self._patience = url, patience
        self._http = httpx.Client(**options(url, key, timeout))

    sentiment, sentiment_many = _method(calls.sentiment), _method(calls.sentiment_many)
    classify, classify_many = _method(calls.classify), _method(calls.classify_many)
    vqa, vqa_many = _method(calls.vqa), _method(calls.vqa_many)
    adapter, push, delete = _method(calls.adapter), _method(calls.push), _method(calls.delete)
    alias, set_alias = _method(calls.alias), _method(calls.set_alias)
    rollback, remove_alias = _method(calls.rollback), _method(calls.remove_alias)
    audit, ready = _method(calls.audit), _method(calls.ready)
    submit_job, job, cancel_job = _method(training.submit_job), _method(training.job), _method(training.cancel_job)

    def adapters(self) -> Iterator[AdapterView]:
        """Every adapter that the server knows, by name; pages are asked for as they are needed."""
        page = self.send(calls.page())
        yield from page.adapters
        while page.next is not None:
            page = self.send(calls.page(page.next))
            yield from page.adapters

    def jobs(self) -> Iterator[JobView]:
        """Every training job, the newest first; pages are asked for as they are needed."""
        page = self.send(training.job_page())
        yield from page.jobs
        while page.next is not None:
            page = self.send(training.job_page(page.next))
            yield from page.jobs

    def follow_job(self, job: str) -> Iterator[JobEvent]:
        """The events of a training job as they come, up to its end; a lost connection is made anew."""
        following = Following(job, self._patience)
        while not following.ended:
            outcome: Outcome = httpx.ReadError("the events ended before the job did")
            try:
                with self._http.stream(**request(following.call())) as response:
                    if response.is_success:
                        yield from (event for line in response.iter_lines() if (event := following.read(line)) is not None)
                    else:
                        response.read()
                        outcome = response
            except httpx.RequestError as error:
                outcome = error
            if not following.ended:
                if (pause := following.pause(outcome)) is None:
                    settle(outcome, self._url)
                time.sleep(pause or 0)

    def pull(self, selector: str, folder: Path | None = None) -> Path:
        """:func:`service.client.flows.pull`."""
        flow = flows.pull(selector, folder)
        step = flows.advance(flow)
        while isinstance(step, Call):
            step = flows.advance(flow, self.send(step))
        return step.result

    def send(self, call: Call[T]) -> T:
        """Make a call and read its answer."""
        return call.parse(self.fetch(call))

    def fetch(self, call: Call[T]) -> httpx.Response:
        """Make a call, and return its answer as it came."""
        attempts = retries(call, self._patience)
        while (pause := attempts.pause(outcome := self._attempt(call))) is not None:
            time.sleep(pause)
        return settle(outcome, self._url)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _attempt(self, call: Call[T]) -> Outcome:
        try:
            return self._http.request(**request(call))
        except httpx.RequestError as error:
            return error
