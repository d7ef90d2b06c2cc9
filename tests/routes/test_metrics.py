"""What the metrics say is what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.images import image_file
from tests.support.server import Server, wait_until

if TYPE_CHECKING:
    from tests.conftest import Start


def read(server: Server) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def change(before: dict[tuple[str, ...], float], after: dict[tuple[str, ...], float], *key: str) -> float:
    return after[key] - before.get(key, 0.0)


def test_a_batch_is_counted_by_rows_tokens_adapters_and_times(server: Server) -> None:
    before = read(server)
    answer = server.post("/v1/classify", {"texts": ["a", "a b c"], "adapters": ["sentiment", "irony"]})
    assert answer.status_code == 200
    wait_until(lambda: change(before, read(server), "quickchange_batch_rows_count", "text") == 1)
    after = read(server)
    tokens = change(before, after, "quickchange_batch_tokens_sum", "text")
    padded = change(before, after, "quickchange_batch_padded_tokens_sum", "text")
    assert change(before, after, "quickchange_batch_rows_sum", "text") == 4
    assert change(before, after, "quickchange_batch_adapters_sum", "text") == 2
    assert change(before, after, "quickchange_queue_seconds_count", "text") == 4
    assert 0 < tokens < padded and padded % 4 == 0
    assert change(before, after, "quickchange_forward_seconds_sum", "text") > 0
    assert change(before, after, "quickchange_collate_seconds_sum", "text") > 0


def test_failures_are_counted_by_code_wherever_they_arise(server: Server) -> None:
    codes: dict[str, Callable[[], object]] = {
        "adapter_not_found": lambda: server.post("/v1/sentiment", {"text": "a", "adapter": "nope"}),
        "bad_request": lambda: server.post("/v1/sentiment", {"words": "a"}),
        "not_found": lambda: server.client.get("/never"),
        "method_not_allowed": lambda: server.client.get("/v1/sentiment"),
    }
    for code, provoke in codes.items():
        before = read(server)
        provoke()
        assert change(before, read(server), "quickchange_failures_total", code) == 1


def test_memory_of_adapters_and_embeddings_is_what_the_parts_hold(server: Server) -> None:
    form: dict[str, Any] = {"files": {"image": ("a.png", image_file(78))}, "data": {"question": "where is it"}}
    assert server.client.post("/v1/vqa", **form).status_code == 200
    found, services = read(server), server.application.services
    residency = services.lifecycle.residency
    assert found["quickchange_adapter_bytes", "device"] == residency.device.bytes > 0
    assert found["quickchange_adapters_loaded", "device"] == len(residency.device)
    assert found["quickchange_adapter_loads_total", "host"] == residency.host.loads
    assert found["quickchange_adapter_evictions_total", "device"] == residency.device.evictions
    assert found["quickchange_embedding_cache_bytes", "images"] == services.caches["images"].nbytes > 0
    assert found[("process_resident_memory_bytes",)] > 1e7


def test_nothing_is_left_in_work_and_the_loops_delay_is_measured(start: Start) -> None:
    running = start()
    wait_until(lambda: read(running)[("quickchange_event_loop_delay_seconds_count",)] >= 2)
    found = read(running)
    assert found["quickchange_rows_in_work", "text"] == found["quickchange_rows_waiting", "vqa"] == 0
    assert found[("quickchange_event_loop_delay_seconds_sum",)] < 2


def test_series_do_not_grow_with_what_clients_send(server: Server) -> None:
    def send(number: int) -> None:
        server.post("/v1/classify", {"text": "a", "adapter": f"made-up-{number}"})
        server.client.get(f"/made/up/{number}")
        server.client.request(f"MADE{number}", "/v1/sentiment")

    send(0)
    before = set(read(server))
    for number in range(1, 20):
        send(number)
    found = set(read(server))
    assert found == before
    assert not [key for key in found if "made" in str(key).lower()]
