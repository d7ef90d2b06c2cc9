"""What an answer about an image costs through HTTP: about a new one beside its bare encoding, and about one seen before."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from random import Random
from statistics import median

import torch

from loadtest.bench_model import Unprepared
from loadtest.client import HOST, is_whole, post_form
from loadtest.figures import Figure
from loadtest.images import SIZE, drawing
from loadtest.outcome import OK
from loadtest.plan import Bench, Part
from loadtest.server import ServerProcess
from loadtest.timing import seconds
from service.models.image_encoder import load_image_encoder
from service.settings import Settings
from service.store.registry import Registry
from service.store.selector import LIVE
from service.tasks.images import decode

NAME, QUESTION = "vqa", "what is on the table"
SEEN, SEEN_STRETCH = 10.0, 5.0  # ms
NEW, NEW_STRETCH = 1.3, 1.1
ENCODER: str = Settings.model_fields["image_encoder"].default
WARM_UP, SETTLE = 3, 0.1
PATIENCE = 60.0
Times = dict[str, list[float]]


def vqa(bench: Bench) -> Part:
    """New images over HTTP, the same ones again, and decoded and encoded here, each in a block, so that they never compete.

    Raises :class:`Unprepared` where no adapter ``vqa`` is live.
    """
    adapters = Registry.open(bench.adapters)
    if not any(adapter.name == NAME and LIVE in adapter.aliases for adapter in adapters):
        raise Unprepared(f"no live adapter {NAME!r}; name a folder of adapters by --adapters")
    encode, random = _encoder(), Random(0)
    times: Times = defaultdict(list)
    server = ServerProcess(bench.adapters, bench.scratch / "vqa.log", base_model=bench.base_model)
    with server, closing(Client(server.port)) as client:
        for repeat in range(bench.repeats):
            bench.say(f"VQA: repeat {repeat + 1} of {bench.repeats}")
            images = [drawing(random) for _ in range(WARM_UP + bench.plan.images)]
            forms = [form(image) for image in images]
            for name in ("new", "seen"):
                times[name].append(_typical([partial(client.ask, one) for one in forms]))
            times["bare"].append(_typical([partial(encode, image) for image in images]))
    return Part(figures(times))


def figures(times: Times) -> list[Figure]:
    """The rows, from the seconds of each repeat."""
    ratios = [new / bare for new, bare in zip(times["new"], times["bare"], strict=True)]
    detail = {f"{name} ms": 1e3 * median(times[name]) for name in ("new", "bare")}
    what = f"an image of {SIZE[0]} × {SIZE[1]} through HTTP"
    return [
        Figure(f"{what}, seen before: p50", "ms", SEEN, [1e3 * one for one in times["seen"]], stretch=SEEN_STRETCH),
        Figure(f"{what}, new / bare decoding and encoder", "×", NEW, ratios, detail, stretch=NEW_STRETCH),
    ]


def form(image: bytes) -> bytes:
    """The bytes of a POST of an image and a question."""
    return post_form(f"/v1/{NAME}", {"image": ("image.jpg", image, "image/jpeg")}, {"question": QUESTION})


class Client:
    """One connection, kept open, at the least cost that Python allows."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close = self._socket.close

    def ask(self, request: bytes) -> None:
        """Send a request and wait for its answer, which must be 200."""
        self._socket.sendall(request)
        answer = self._socket.recv(2**16)
        while not is_whole(answer):
            answer += self._socket.recv(2**16)
        if int(answer[9:12]) != OK:
            raise RuntimeError(f"the server answered {answer[:500]!r}")


def _encoder() -> Callable[[bytes], object]:
    """What a new image needs at least: it is decoded, brought to the encoder's size and encoded."""
    encoder = load_image_encoder(ENCODER, torch.device("cpu"))
    most: int = Settings.model_fields["max_image_pixels"].default
    return lambda image: encoder.embed(encoder.preprocess(decode(image, most))[None])


def _typical(calls: Sequence[Callable[[], object]]) -> float:
    """The median time of calls, without the first few, once nothing else is running any more."""
    time.sleep(SETTLE)
    return median([seconds(call) for call in calls][WARM_UP:])
