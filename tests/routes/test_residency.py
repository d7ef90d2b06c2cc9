"""More adapters than memory holds: every answer is right, broken files fail alone, what is preloaded stays."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from service.store.alias import Target
from service.store.bundle import Bundle
from service.store.registry import Registry
from service.store.selector import Ref
from tests.support.bundles import text_bundle
from tests.support.problems import assert_problem
from tests.support.server import Server, wait_until

if TYPE_CHECKING:
    from tests.conftest import Start

ADAPTERS = 24
NAMES = [f"a{number:02}" for number in range(ADAPTERS)]


@pytest.fixture(scope="module")
def many(tiny_base: Path) -> list[Bundle]:
    """Adapters whose weights and labels are their own."""
    return [text_bundle(tiny_base, [f"{name} no", f"{name} yes"], seed=number) for number, name in enumerate(NAMES)]


@pytest.fixture
def stored(many: list[Bundle], tmp_path: Path) -> Path:
    """A folder with all of them, live."""
    registry = Registry.open(tmp_path / "adapters")
    for name, bundle in zip(NAMES, many, strict=True):
        registry.set_alias(name, "live", Target.at(registry.publish(name, bundle)[0].version))
    return tmp_path / "adapters"


def size(server: Server) -> int:
    """What one of the adapters takes on the device."""
    device = server.application.services.lifecycle.residency.device
    return device.bytes // len(device)


def classify(server: Server, name: str) -> Any:
    return server.post("/v1/classify", {"text": "so it goes", "adapter": name})


@pytest.fixture
def one(start: Start, stored: Path) -> int:
    """What one adapter takes on the device."""
    assert stored.is_dir()
    return size(start())


def test_traffic_over_more_adapters_than_fit_gives_each_its_own_answer_within_the_budgets(
    start: Start, stored: Path, one: int
) -> None:
    everything, tight = start(), start(max_lora_bytes=10 * one, max_cpu_lora_bytes=4 * one)
    assert stored.is_dir()
    expected = {name: classify(everything, name).json()["scores"] for name in NAMES}
    residency = tight.application.services.lifecycle.residency
    over: list[tuple[int, int]] = []

    def ask(seed: int) -> None:
        random = Random(seed)
        for _ in range(120):
            name = random.choice(NAMES)
            answer = classify(tight, name)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-adapter"] == f"{name}:1"
            assert answer.json()["scores"] == pytest.approx(expected[name], abs=1e-5)
            if residency.device.bytes > residency.device.budget or residency.host.bytes > residency.host.budget:
                over.append((residency.device.bytes, residency.host.bytes))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))
    assert over == []
    assert residency.device.evictions > 100 and residency.host.evictions > 10
    assert len(residency.device) == residency.device.loads - residency.device.evictions == 10


def test_more_adapters_in_one_request_than_fit_are_refused_and_nothing_stays_taken(start: Start, stored: Path, one: int) -> None:
    server = start(max_lora_bytes=3 * one)
    assert stored.is_dir()
    refused = server.post("/v1/classify", {"text": "a", "adapters": NAMES[:5]})
    assert_problem(refused, 429, "overloaded", "all in use")
    assert refused.headers["retry-after"] == "1"
    answers = server.post("/v1/classify", {"text": "a", "adapters": NAMES[:3]}).json()["results"]
    assert [answer["adapter"] for answer in answers] == NAMES[:3]
    assert classify(server, NAMES[9]).status_code == 200


def test_a_file_that_breaks_fails_its_own_requests_and_is_read_again_once_it_is_whole(
    start: Start, stored: Path, one: int
) -> None:
    server = start(max_lora_bytes=3 * one, max_cpu_lora_bytes=0)
    weights = stored / NAMES[20] / "1" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for broken, says in (
        (b"", "adapter_model.safetensors is not the file that manifest.json describes"),
        (None, "no adapter_model.safetensors in the bundle"),
    ):
        weights.unlink()
        if broken is not None:
            weights.write_bytes(broken)
        assert_problem(classify(server, NAMES[20]), 422, "adapter_incompatible", says)
        assert classify(server, NAMES[1]).status_code == 200
        weights.write_bytes(whole)
        wait_until(lambda: classify(server, NAMES[20]).status_code == 200)
        for name in NAMES[:4]:
            classify(server, name)
    lines = server.client.get("/v1/adapters").json()["adapters"]
    assert len(lines) == ADAPTERS and Counter(line["versions"][0]["state"] for line in lines) == {"loaded": 3, "stored": 21}


def test_what_is_preloaded_is_never_evicted_and_follows_its_alias(
    start: Start, stored: Path, many: list[Bundle], one: int
) -> None:
    server = start(max_lora_bytes=4 * one, preloaded_adapters=f"{NAMES[7]}, {NAMES[8]}:1,nobody")
    assert stored.is_dir()
    assert server.application.problems == ["nobody: " + server.application.problems[0].removeprefix("nobody: ")]
    assert "no adapter named 'nobody'" in server.application.problems[0]
    residency = server.application.services.lifecycle.residency

    def loaded(*names: str) -> bool:
        states = {n: server.client.get(f"/v1/adapters/{n}").json()["versions"][-1]["state"] for n in names}
        return set(states.values()) == {"loaded"}

    for name in NAMES:
        assert classify(server, name).status_code == 200
    assert loaded(NAMES[7], NAMES[8]) and residency.device.evictions > 10
    assert server.publish(NAMES[7], many[0]).json()["version"] == 2
    for name in NAMES[10:]:
        assert classify(server, name).status_code == 200
    assert loaded(NAMES[7], NAMES[8]) and len(residency.device) == 4


def test_cold_adapters_asked_for_all_at_once_are_each_loaded_once(start: Start, stored: Path) -> None:
    assert stored.is_dir()
    server = start()
    residency = server.application.services.lifecycle.residency
    for name in NAMES:
        residency.drop(Ref(name, 1))
    before, together = residency.device.loads, threading.Barrier(16)

    def ask(seed: int) -> list[int]:
        together.wait(10)
        order = Random(seed // 8).sample(NAMES, ADAPTERS)
        return [classify(server, name).status_code for name in order]

    with ThreadPoolExecutor(16) as threads:
        statuses = [status for some in threads.map(ask, range(16)) for status in some]
    assert set(statuses) == {200} and residency.device.loads - before == ADAPTERS
