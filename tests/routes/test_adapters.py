"""Adapters over HTTP: published, pointed at, listed, deleted, and refused without a trace."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.store.bundle import Bundle
from tests.support.bundles import text_bundle
from tests.support.problems import assert_problem
from tests.support.reference import text_scores
from tests.support.server import Server, bundle_parts

if TYPE_CHECKING:
    from tests.conftest import Start


@pytest.fixture
def live(start: Start) -> Server:
    """A server of its own, with no adapters."""
    return start()


def test_a_published_adapter_answers_the_next_request(live: Server, bundles: dict[str, Bundle]) -> None:
    assert_problem(live.post("/v1/classify", {"text": "a", "adapter": "mood"}), 404, "adapter_not_found", "mood")
    published = live.publish("mood", bundles["emotion"])
    assert published.status_code == 201
    body = published.json()
    assert (body["name"], body["version"], body["task"], body["aliases"]) == ("mood", 1, "text-classification", {"live": 1})
    assert body["digest"] == bundles["emotion"].manifest.digest and body["labels"] == list(bundles["emotion"].manifest.labels)
    assert live.post("/v1/classify", {"text": "a", "adapter": "mood"}).json()["version"] == 1


def test_the_same_bytes_again_are_the_same_version(live: Server, bundles: dict[str, Bundle]) -> None:
    first, again = live.publish("mood", bundles["emotion"]), live.publish("mood", bundles["emotion"])
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert live.publish("mood", bundles["irony"], None).json()["version"] == 2
    assert live.publish("mood", bundles["emotion"], "old").json()["aliases"] == {"live": 1, "old": 1}


def test_an_alias_moves_forth_and_back_for_the_next_request(live: Server, bundles: dict[str, Bundle]) -> None:
    live.publish("irony", bundles["irony"])
    live.publish("irony", bundles["irony-2"], None)
    for version in (2, 1, 2):
        moved = live.client.put("/v1/adapters/irony/aliases/live", json={"version": version})
        assert moved.status_code == 200 and moved.json()["version"] == version
        assert live.post("/v1/classify", {"text": "a", "adapter": "irony"}).headers["x-adapter"] == f"irony:{version}"


def test_a_version_is_deleted_when_no_alias_points_at_it_and_its_number_is_never_used_again(
    live: Server, bundles: dict[str, Bundle]
) -> None:
    live.publish("irony", bundles["irony"])
    assert_problem(live.client.delete("/v1/adapters/irony/versions/1"), 409, "version_conflict", "live")
    live.publish("irony", bundles["irony-2"])
    gone = live.client.delete("/v1/adapters/irony/versions/1")
    assert (gone.status_code, gone.content) == (204, b"")
    assert_problem(live.client.delete("/v1/adapters/irony/versions/1"), 410, "adapter_deleted")
    assert_problem(live.post("/v1/classify", {"text": "a", "adapter": "irony:1"}), 410, "adapter_deleted", "it has 2")
    assert_problem(live.client.put("/v1/adapters/irony/aliases/x", json={"version": 1}), 410, "adapter_deleted")
    assert live.publish("irony", bundles["irony"], None).json()["version"] == 3
    assert not any(path.startswith("irony/1/") for path in live.tree())


def test_a_removed_alias_answers_nothing_and_frees_its_version(live: Server, bundles: dict[str, Bundle]) -> None:
    live.publish("irony", bundles["irony"])
    assert live.client.delete("/v1/adapters/irony/aliases/live").status_code == 204
    assert_problem(live.post("/v1/classify", {"text": "a", "adapter": "irony"}), 404, "adapter_not_found", "live")
    assert_problem(live.client.delete("/v1/adapters/irony/aliases/live"), 404, "adapter_not_found")
    assert live.client.delete("/v1/adapters/irony/versions/1").status_code == 204


def test_everything_is_still_there_after_a_restart(start: Start, bundles: dict[str, Bundle]) -> None:
    first = start()
    for bundle, alias in (("irony", "canary"), ("irony-2", "live"), ("emotion", None)):
        first.publish("irony", bundles[bundle], alias)
    first.client.delete("/v1/adapters/irony/versions/3")
    second = start()
    assert second.client.get("/v1/adapters").json() == first.client.get("/v1/adapters").json()
    body = {"text": "a", "adapters": ["irony", "irony@canary"]}
    # The two rows may share a batch or not, which changes the last bits of a score.
    before, after = (server.post("/v1/classify", body).json()["results"] for server in (first, second))
    assert [(r["adapter"], r["version"], r["label"]) for r in after] == [(r["adapter"], r["version"], r["label"]) for r in before]
    assert [r["scores"] for r in after] == [pytest.approx(r["scores"], abs=1e-5) for r in before]
    assert_problem(second.post("/v1/classify", {"text": "a", "adapter": "irony:3"}), 410, "adapter_deleted")


def test_the_list_shows_versions_aliases_metrics_and_state(server: Server, bundles: dict[str, Bundle]) -> None:
    listed = {adapter["name"]: adapter for adapter in server.client.get("/v1/adapters").json()["adapters"]}
    assert list(listed) == ["emotion", "irony", "sentiment", "short", "vqa"]
    irony = server.client.get("/v1/adapters/irony").json()
    assert listed["irony"] == irony
    assert (irony["task"], irony["aliases"], irony["labels"]) == (
        "text-classification",
        {"canary": 1, "live": 2},
        ["literal", "ironic"],
    )
    assert [v["version"] for v in irony["versions"]] == [1, 2]
    version = irony["versions"][0]
    assert version["digest"] == bundles["irony"].manifest.digest
    assert (version["base"], version["metrics"]) == ({"base_model": "tiny"}, {"validation": {"accuracy": 0.5}})
    assert version["state"] == "loaded" and version["created"].startswith("20")
    assert_problem(server.client.get("/v1/adapters/nope"), 404, "adapter_not_found", "emotion, irony")


def test_models_have_vllms_shape(server: Server, tiny_base: Path) -> None:
    listed = server.client.get("/v1/models").json()
    base, *adapters = listed["data"]
    assert listed["object"] == "list"
    assert base == {"id": str(tiny_base), "object": "model", "root": str(tiny_base), "parent": None}
    assert {"id": "irony", "object": "model", "root": "irony:2", "parent": str(tiny_base)} in adapters


def test_a_plain_peft_adapter_registers_without_a_manifest(
    live: Server, bundles: dict[str, Bundle], tiny_base: Path, tmp_path: Path
) -> None:
    published = live.upload("plain", bundle_parts(bundles["emotion"], manifest=None), "live")
    assert published.status_code == 201 and published.json()["labels"] == [f"LABEL_{i}" for i in range(4)]
    scores = live.post("/v1/classify", {"text": "so it goes", "adapter": "plain"}).json()["scores"]
    expected = list(text_scores(tiny_base, bundles["emotion"], tmp_path / "peft", ["so it goes"])[0].values())
    assert [scores[f"LABEL_{i}"] for i in range(4)] == pytest.approx(expected, abs=1e-5)


def test_labels_in_a_plain_adapters_configuration_are_used(live: Server, bundles: dict[str, Bundle]) -> None:
    config = {**bundles["irony"].config, "id2label": {"1": "yes", "0": "no"}}
    published = live.upload("plain", bundle_parts(bundles["irony"], manifest=None, adapter_config=json.dumps(config).encode()))
    assert published.json()["labels"] == ["no", "yes"]


def test_a_swap_under_traffic_fails_no_request_and_every_answer_is_one_of_the_published_versions(
    live: Server, bundles: dict[str, Bundle], tiny_base: Path, tmp_path: Path
) -> None:
    versions = [
        bundles["irony"],
        bundles["irony-2"],
        text_bundle(tiny_base, ["literal", "ironic"], seed=9, target_modules="all-linear"),
    ]
    text = "what a lovely day for a swap"
    expected = {i: text_scores(tiny_base, b, tmp_path / str(i), [text])[0] for i, b in enumerate(versions, 1)}
    live.publish("irony", versions[0])
    answers: list[tuple[int, dict[str, Any]]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            response = live.post("/v1/classify", {"text": text, "adapter": "irony"})
            answers.append((response.status_code, response.json()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for bundle in versions[1:]:
        assert live.publish("irony", bundle).status_code == 201
    for version in (1, 2, 3) * 5:
        assert live.client.put("/v1/adapters/irony/aliases/live", json={"version": version}).status_code == 200
        assert live.post("/v1/classify", {"text": text, "adapter": "irony"}).json()["version"] == version
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200} and len(answers) > 10
    for _, answer in answers:
        assert answer["scores"] == pytest.approx(expected[answer["version"]], abs=1e-5)
