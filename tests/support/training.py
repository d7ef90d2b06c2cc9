"""Training jobs for tests: data of which one word tells the label, and calls about a job."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

JOBS = "/v1/training-jobs"
WORDS = (("awful", "terrible", "sad"), ("great", "lovely", "happy"))
LABELS = ("bad", "good")
QUICK: Mapping[str, Any] = {
    "epochs": 4, "batch_size": 8, "learning_rate": 2e-2, "precision": "fp32", "r": 4, "max_length": 16,
}  # fmt: skip
SECONDS = 60.0


def rows(count: int = 80) -> bytes:
    """A CSV file of labelled texts."""
    pick = random.Random(0)
    lines = [f"{' '.join(pick.choices(WORDS[i % 2], k=5))},{LABELS[i % 2]}" for i in range(count)]
    return "\n".join(["text,label", *lines, ""]).encode()


def ask(client: httpx.Client, name: str = "mood", data: bytes | None = None, **parts: Any) -> httpx.Response:
    """Ask for a training; further parts of the form by keyword, ``file`` being the data's file name."""
    filename, headers = parts.pop("file", "words.csv"), parts.pop("headers", None)
    fields = {"name": name, "options": QUICK, **parts}
    form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items() if value is not None}
    return client.post(JOBS, files={"data": (filename, rows() if data is None else data)}, data=form, headers=headers)


def asked(client: httpx.Client, *arguments: Any, **parts: Any) -> str:
    """Ask for a training that is taken, and return its id."""
    response = ask(client, *arguments, **parts)
    assert response.status_code == 202, response.text
    job: str = response.json()["id"]
    assert response.headers["location"] == f"{JOBS}/{job}"
    return job


def seen(client: httpx.Client, job: str, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The job as soon as it is in one of these states; fails when it is over in another, or that takes too long."""
    end = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = client.get(f"{JOBS}/{job}").json()
        if found["state"] in states:
            return found
        assert found["state"] in ("queued", "running", "publishing") and time.monotonic() < end, found
        time.sleep(0.05)


def events(client: httpx.Client, job: str, last: str | None = None) -> list[tuple[str, str | None, dict[str, Any]]]:
    """All events of a job to the end: their kind, id and content."""
    found, kind, place = [], "", None
    headers = {"last-event-id": last} if last is not None else {}
    with client.stream("GET", f"{JOBS}/{job}/events", headers=headers, timeout=SECONDS) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kind, place = value, None
            elif field == "id":
                place = value
            elif field == "data":
                found.append((kind, place, json.loads(value)))
    return found
