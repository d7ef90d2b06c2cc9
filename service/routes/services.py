"""What the handlers are given: the pipelines, the adapters' lifecycle, and what the server is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from litestar import Response
from pydantic import BaseModel

from service.engine.pipeline import Answer, Pipeline, Timing
from service.errors import TooLarge, Unavailable
from service.jobs.supervisor import Supervisor
from service.store.selector import Ref
from service.store.watcher import Watcher
from service.tasks.embedding_cache import EmbeddingCache
from service.tasks.lifecycle import Lifecycle
from service.tasks.shadow import Comparisons
from service.tasks.text_classification import Classification, TextItem, TextRequest
from service.tasks.vqa import VqaAnswer, VqaItem, VqaRequest

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


@dataclass(slots=True)
class Lifetime:
    """Whether the server takes new requests; SIGTERM sets ``draining``."""

    draining: bool = False

    def check(self) -> None:
        """Raise :class:`Unavailable` once the server drains."""
        if self.draining:
            raise Unavailable("the server is shutting down; ask another one, or again in a moment")


@dataclass(slots=True)
class Readers:
    """How many follow training jobs."""

    open: int = 0


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a handler may call; made once by the application."""

    text: Pipeline[TextRequest, TextItem, Classification]
    vqa: Pipeline[VqaRequest, VqaItem, VqaAnswer]
    lifecycle: Lifecycle
    watcher: Watcher
    comparisons: Mapping[str, Comparisons]
    caches: Mapping[str, EmbeddingCache[Any]]
    base_model: str
    lifetime: Lifetime
    max_client_batch_size: int
    threads: ThreadPoolExecutor
    max_lora_rank: int
    readers: Readers
    training: Supervisor | None  # None where training over HTTP is turned off

    def check_batch(self, rows: int) -> None:
        """Raise :class:`TooLarge` for more rows than one request may hold."""
        if rows > self.max_client_batch_size:
            raise TooLarge(f"this request asks for {rows} results; at most {self.max_client_batch_size} are accepted at a time")

    async def change(self, call: Callable[[], T]) -> T:
        """Run a change of the adapters on a thread of its own, to its end even if the client leaves."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self.threads, call))


def respond(content: Body, answer: Answer[T], refs: Sequence[Ref]) -> Response[Body]:
    """A prediction's response, with its timing and, where one version answered it all, that version in headers."""
    distinct = set(refs)
    adapter = {"x-adapter": str(refs[0])} if len(distinct) == 1 else {}
    return Response(content, headers={**timing_headers(answer.timing), **adapter})


def timing_headers(timing: Timing) -> dict[str, str]:
    """Milliseconds of tokenising (and decoding), waiting and computing."""
    return {
        "x-tokenization-time": f"{timing.prepare:.2f}",
        "x-queue-time": f"{timing.queue:.2f}",
        "x-inference-time": f"{timing.inference:.2f}",
    }
