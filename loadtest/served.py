"""A server of our own for a measurement: a base model of some shape, made-up adapters, and the requests to send to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from random import Random

import httpx
import torch

from loadtest import made_up
from loadtest.client import post
from loadtest.plan import Bench, zipf
from loadtest.server import ServerProcess
from service.models.base_weights import load_base
from service.models.text_encoder import TextEncoder

REQUESTS = 2000  # different ones, sent over and over


@dataclass(frozen=True, slots=True)
class Asked:
    """One text and the adapter that it is for."""

    text: str
    adapter: str

    @property
    def request(self) -> bytes:
        """The HTTP request."""
        return post("/v1/classify", {"text": self.text, "adapter": self.adapter})


@contextmanager
def served(bench: Bench, shape: str, tenants: int, **settings: object) -> Iterator[ServerProcess]:
    """A server with so many live adapters, each of them loaded by having answered once."""
    adapters, base = bench.scratch / f"{shape}-{tenants}", bench.base(shape)
    if not adapters.is_dir():
        bench.say(f"{shape}: publishing {tenants} adapters")
        made_up.publish(TextEncoder(load_base(str(base)), torch.device("cpu")), adapters, made_up.names(tenants))
    bench.say(f"{shape}: starting a server with {tenants} adapters")
    with ServerProcess(adapters, adapters.with_suffix(".log"), base_model=base, **settings) as server:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for name in made_up.names(tenants):
                http.post("/v1/classify", json={"text": "a text", "adapter": name}).raise_for_status()
        yield server


def asked(bench: Bench, tenants: int, seed: int = 0) -> list[Asked]:
    """Texts for adapters that are chosen by Zipf's law among so many."""
    texts, names = bench.texts(seed), made_up.names(tenants)
    return [Asked(text, names[place]) for text, place in islice(zip(texts, zipf(tenants, Random(seed)), strict=False), REQUESTS)]
