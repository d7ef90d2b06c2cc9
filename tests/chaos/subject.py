"""A server that something happens to, while clients ask it all the time and others change its adapters."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from safetensors.numpy import load, save

from service.store.bundle import Bundle
from tests.chaos.rows import Row
from tests.support.server import bundle_parts

NAME = "mood"
BIAS = "base_model.model.classifier.bias"
STEP, TOLERANCE = 0.1, 1e-5  # of a bias between two versions, and of a score
QUESTION = {"text": "so it goes", "adapter": NAME}
CODES = {HTTPStatus.SERVICE_UNAVAILABLE: "unavailable", HTTPStatus.INSUFFICIENT_STORAGE: "store_full"}


@dataclass
class Subject:
    """A running server by its address and process; ``folder`` is where its files are, unless they are elsewhere.

    ``published`` are the versions of one adapter that it has confirmed; clients ask for the first of them.
    """

    url: str
    pid: int
    bundle: Bundle
    folder: Path | None = None
    published: set[int] = field(default_factory=set)
    uploads: int = 0

    def __enter__(self) -> Self:
        self.client = httpx.Client(base_url=self.url, timeout=90)
        self.upload("live")
        self.expected = self.client.post("/v1/classify", json=QUESTION).json()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()

    def upload(self, alias: str = "", card: int = 0) -> httpx.Response:
        """Upload a version that there is not yet, with so many bytes in its card."""
        self.uploads += 1
        tensors = load(bytes(self.bundle.weights))
        tensors[BIAS] = tensors[BIAS] + np.array([self.uploads * STEP, 0], tensors[BIAS].dtype)
        parts = bundle_parts(self.bundle, adapter_model=save(tensors, {"format": "pt"}), manifest=None, card=b"x" * card or None)
        files = {name: (name, data) for name, data in parts.items()}
        answer = self.client.post(f"/v1/adapters/{NAME}/versions", files=files, data={"alias": alias})
        if answer.is_success:
            self.published.add(answer.json()["version"])
        return answer

    def move(self) -> httpx.Response:
        """Point an alias of its own somewhere."""
        return self.client.put(f"/v1/adapters/{NAME}/aliases/moved", json={"version": min(self.published)})

    def status(self) -> str:
        """What the server says of itself."""
        found: str = self.client.get("/health/ready").json()["status"]
        return found

    def faults(self) -> list[str]:
        """What of its adapters is not as it has confirmed."""
        found = {view["version"] for view in self.client.get(f"/v1/adapters/{NAME}").json()["versions"]}
        faults = [] if found == self.published else [f"versions {sorted(found)}, confirmed were {sorted(self.published)}"]
        if self.folder is not None:
            kept = {int(path.name) for path in (self.folder / NAME).iterdir() if path.name.isdecimal() and any(path.iterdir())}
            faults += [] if kept == found else [f"files of versions {sorted(kept)}, registered are {sorted(found)}"]
        for version in sorted(found):
            answer = self.client.post("/v1/classify", json={**QUESTION, "adapter": f"{NAME}:{version}"})
            faults += [] if answer.is_success else [f"version {version}: {answer.status_code} {answer.text[:200]}"]
        return faults


class Asking:
    """A client that asks one question again and again for as long as the context lasts; ``faults`` are wrong answers."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._stopping = subject, threading.Event()
        self._thread = threading.Thread(target=self._ask, name="asking")
        self.asked = 0
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(60)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._subject.url, timeout=10) as client:
            while not self._stopping.wait(0.01):
                self.asked += 1
                try:
                    answer = client.post("/v1/classify", json=QUESTION)
                    if not is_same(answer.json(), self._subject.expected):
                        self.faults.append(f"a prediction: {answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    self.faults.append(f"a prediction: {type(error).__name__}")


def is_same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two answers are one version's; what rides in the same batch changes the last digits of a score."""
    known = "version" in answer and answer["version"] == expected["version"]
    return known and all(abs(answer["scores"][label] - score) < TOLERANCE for label, score in expected["scores"].items())


class Trial:
    """What is asked of a subject during one fault, and what was wrong."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []

    def expect(self, answer: httpx.Response, *statuses: int) -> httpx.Response:
        """Note the answer to a change, and what is wrong with it."""
        self.answers[answer.status_code] += 1
        body: dict[str, Any] = answer.json()
        code = CODES.get(HTTPStatus(answer.status_code))
        if answer.status_code not in statuses or (code and body["code"] != code):
            self.faults.append(f"a change: {answer.status_code} {answer.text[:200]}")
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and not int(answer.headers.get("retry-after", 0)):
            self.faults.append("a change: 503 without Retry-After")
        return answer


def tried(subject: Subject, fault: str, act: Callable[[Trial], str]) -> Row:
    """Let something happen to the subject while it is asked; changes work again afterwards, and nothing is half done.

    ``act`` says in the end what else is worth telling.
    """
    trial = Trial(subject)
    with Asking(subject) as asking:
        remark = act(trial)
        trial.expect(subject.upload(), HTTPStatus.CREATED)
        trial.expect(subject.move(), HTTPStatus.OK)
    faults = [*trial.faults, *asking.faults, *subject.faults()]
    changes = ", ".join(f"{count} × {status}" for status, count in sorted(trial.answers.items()))
    told = [f"{asking.asked - len(asking.faults)} predictions answered; changes: {changes}", remark, *faults[:3]]
    return Row(fault, asking.asked + trial.answers.total(), len(faults), "; ".join(filter(None, told)))
