"""The users of the load test: people who ask for predictions, and one who swaps an adapter all the while.

``make loadtest`` runs it headless and judges the result; ``locust -f loadtest/locustfile.py --host URL`` opens locust's
own page. Arrivals are random at a target rate, yet a user asks one thing at a time, so a server that is too slow shows
as a rate that is not reached.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, stats
from urllib3.filepost import encode_multipart_formdata

from loadtest.load import Load
from loadtest.summary import KINDS, Endpoint, Summary
from loadtest.swap import NAME, SwapBundle
from loadtest.texts import question

KEY_VARIABLE = "QUICKCHANGE_API_KEY"
OK, CREATED, NO_CONTENT = 200, 201, 204


def tenth(milliseconds: float) -> float:
    """Locust would round to two digits, 147 ms to 150; percentiles need better."""
    return round(milliseconds, 1)


stats.bucket_response_time = tenth


class Client(FastHttpUser):  # type: ignore[misc]  # locust comes without types
    """Somebody with a connection of their own, and the API key where there is one."""

    abstract = True

    def on_start(self) -> None:
        """Take what all users share."""
        self.load: Load = self.environment.load
        key = os.environ.get(KEY_VARIABLE)
        self.headers = {"authorization": f"Bearer {key}"} if key else {}

    def ask(
        self, kind: str, method: str, path: str, *, status: int = OK, adapter: str = "", label: str = "", **content: Any
    ) -> dict[str, Any] | None:
        """One request and its answer's body, or None when it failed, which is counted.

        An answer by another version than ``adapter``, or by any of another adapter, is a failure; so is another ``label``.
        """
        headers = {**self.headers, **content.pop("headers", {})}
        with self.client.request(method, path, name=kind, catch_response=True, headers=headers, **content) as response:
            if response.status_code != status:
                response.failure(f"{kind}: {response.status_code} {(response.text or 'no answer')[:200]}")
                return None
            body: dict[str, Any] = response.json() if response.content else {}
            by = response.headers.get("x-adapter", "")
            if adapter not in ("", by, by.partition(":")[0]) or label not in ("", body.get("label")):
                response.failure(f"{kind}: expected {adapter} {label}, got {by} {body.get('label')}")
                return None
            self.load.observe(kind, response.headers)
            return body

    def send(self, kind: str, path: str, fields: Mapping[str, Any], **expected: Any) -> dict[str, Any] | None:
        """A multipart form; the answer's body."""
        body, content_type = encode_multipart_formdata(dict(fields))
        return self.ask(kind, "POST", path, data=body, headers={"content-type": content_type}, **expected)


def sentiment(user: Client) -> None:
    """A text's sentiment."""
    user.ask("sentiment", "POST", "/v1/sentiment", json={"text": next(user.load.texts)}, adapter="sentiment")


def classify(user: Client) -> None:
    """A text by one of the live adapters."""
    adapter = user.load.adapter()
    body = {"text": next(user.load.texts), "adapter": adapter}
    user.ask("classify", "POST", "/v1/classify", json=body, adapter=adapter)


def vqa(user: Client) -> None:
    """A question about an image that may have been asked about before."""
    fields = {"image": ("image.jpg", user.load.image(), "image/jpeg"), "question": question(user.load.random)}
    user.send("vqa", "/v1/vqa", fields, adapter="vqa")


ASK = dict(zip(KINDS, (sentiment, classify, vqa), strict=True))


def one_request(user: Client) -> None:
    """A request of the mix."""
    ASK[user.load.kind()](user)


class Person(Client):
    """Asks for predictions at random times, on average ``--rate`` a second over all persons."""

    tasks = (one_request,)

    def on_start(self) -> None:
        """Begin the sequence of due times."""
        super().on_start()
        options = self.environment.parsed_options
        self.rate = options.rate / max(1, options.num_users - 1)
        self.due = time.monotonic()

    def wait_time(self) -> float:
        """Until the next due time; none when that has passed, so that the rate is caught up with."""
        if not self.rate:
            return 0.0
        self.due += self.load.random.expovariate(self.rate)
        return max(0.0, self.due - time.monotonic())


def swap(user: Swapper) -> None:
    """Publish a version, point the alias at it, see that it answers the very next request, delete the one before."""
    made = user.bundle.version(next(user.serials))
    fields = {part: (part, data, "application/octet-stream") for part, data in made.files.items()}
    published = user.send("swap publish", f"/v1/adapters/{NAME}/versions", fields, status=CREATED)
    if published is None:
        return
    new = published["version"]
    if user.ask("swap alias", "PUT", f"/v1/adapters/{NAME}/aliases/live", json={"version": new}) is None:
        return
    body = {"text": next(user.load.texts), "adapter": NAME}
    user.ask("swap answer", "POST", "/v1/classify", json=body, adapter=f"{NAME}:{new}", label=made.label)
    old, user.live = user.live, new
    if old is None:
        user.load.adapters.append(NAME)  # from now on other users ask for it too, and must never see it fail
    else:
        user.ask("swap delete", "DELETE", f"/v1/adapters/{NAME}/versions/{old}", status=NO_CONTENT)


class Swapper(Client):
    """Swaps its own adapter every second; there is one."""

    fixed_count = 1
    wait_time = constant(1)
    tasks = (swap,)

    def on_start(self) -> None:
        """Read the bundle that the versions are made from."""
        super().on_start()
        self.bundle = SwapBundle.read(Path(self.environment.parsed_options.swap_bundle))
        self.serials = count()
        self.live: int | None = None


def add_options(parser: Any) -> None:
    """The options that the command passes on; locust's page shows them too."""
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second to aim at; 0: as fast as answers come")
    parser.add_argument("--mix", nargs="+", default=["6", "3", "1"], help=f"weights of {', '.join(KINDS)}")
    parser.add_argument("--text-adapters", nargs="+", default=["irony"], help="live text adapters, the most popular first")
    parser.add_argument("--swap-bundle", default="adapters/irony/1", help="text adapter from which new versions are made")
    parser.add_argument("--summary", default="", help="file to write the figures to")


def prepare(environment: Any, **_: Any) -> None:
    """Set up what the users share, and have the figures written at the end."""
    options = environment.parsed_options
    if options is None or not hasattr(options, "mix"):
        return
    environment.load = Load(dict(zip(KINDS, map(float, options.mix), strict=True)), options.text_adapters)


def write_summary(environment: Any, **_: Any) -> None:
    """Write the figures where the command wants them."""
    if environment.parsed_options.summary:
        entries = [entry for entry in environment.stats.entries.values() if entry.num_requests]
        errors = [f"{error.occurrences} x {error.error}" for error in environment.stats.errors.values()]
        crashes = [f"{found['count']} x {found['msg']}" for found in environment.runner.exceptions.values()]
        endpoints = [endpoint(entry, environment.load) for entry in entries]
        summary = Summary(endpoints, endpoint(environment.stats.total, environment.load), errors, crashes)
        summary.write(Path(environment.parsed_options.summary))


def endpoint(entry: Any, load: Load) -> Endpoint:
    """The figures of one kind of request."""
    p50, p95, p99 = (float(entry.get_response_time_percentile(share)) for share in (0.5, 0.95, 0.99))
    return Endpoint(
        entry.name, entry.num_requests, entry.num_failures, entry.total_rps, p50, p95, p99, load.server_times(entry.name)
    )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(prepare)
events.quitting.add_listener(write_summary)
