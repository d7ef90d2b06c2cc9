"""Aliases over HTTP: generations, canaries, shadows, requirements, rollback, and the log of it all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from service.store.bundle import Bundle
from tests.support.bundles import text_bundle, vqa_bundle
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start, Towers

ALIAS = "/v1/adapters/mood/aliases/live"


@pytest.fixture
def live(start: Start, tiny_base: Path) -> Server:
    """A server with four versions of ``mood``; ``live`` is at the first."""
    server = start()
    for seed in range(4):
        bundle = text_bundle(tiny_base, ["no", "yes"], seed=seed)
        metrics = {"validation": {"macro_f1": 0.5 + seed / 10}}
        made = Bundle.assemble(bundle.config, bundle.weights, bundle.manifest.model_copy(update={"metrics": metrics}))
        assert server.publish("mood", made, "live" if not seed else None).status_code == 201
    return server


def put(server: Server, body: dict[str, Any], **headers: str) -> Any:
    return server.client.put(ALIAS, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def version_of(server: Server, routing_key: str | None = None) -> int:
    headers = {"x-routing-key": routing_key} if routing_key is not None else {}
    answer = server.client.post("/v1/classify", json={"text": "a", "adapter": "mood"}, headers=headers)
    assert answer.status_code == 200
    version: int = answer.json()["version"]
    return version


def test_a_move_is_shown_with_its_generation_and_history(live: Server) -> None:
    moved = put(live, {"version": 2})
    assert (moved.status_code, moved.headers["etag"]) == (200, '"2"')
    shown = live.client.get(ALIAS)
    assert shown.json() == moved.json() and shown.headers["etag"] == '"2"'
    body = shown.json()
    assert (body["version"], body["split"], body["generation"], body["shadow"]) == (2, {"2": 100}, 2, None)
    assert [(move["generation"], move["split"], move["action"]) for move in body["history"]] == [
        (2, {"2": 100}, "set"),
        (1, {"1": 100}, "set"),
    ]
    assert_problem(live.client.get("/v1/adapters/mood/aliases/nope"), 404, "adapter_not_found", "it has live")


def test_a_move_from_a_generation_that_has_passed_is_412_and_changes_nothing(live: Server) -> None:
    assert put(live, {"version": 2}, if_match='"1"').status_code == 200
    assert_problem(put(live, {"version": 3}, if_match='"1"'), 412, "precondition_failed", "at generation 2, not 1")
    assert_problem(put(live, {"version": 3}, if_none_match="*"), 412, "precondition_failed")
    assert_problem(live.client.post(f"{ALIAS}/rollback", headers={"if-match": '"1"'}), 412, "precondition_failed")
    assert_problem(put(live, {"version": 3}, if_match="2"), 400, "bad_request", "if-match")
    assert version_of(live) == 2 and live.client.get(ALIAS).json()["generation"] == 2
    new = live.client.put("/v1/adapters/mood/aliases/new", json={"version": 1}, headers={"if-none-match": "*"})
    assert (new.status_code, new.json()["generation"]) == (200, 1)


def test_a_removed_alias_goes_on_counting_when_it_comes_back(live: Server) -> None:
    assert live.client.delete(ALIAS).status_code == 204
    again = put(live, {"version": 2}, if_none_match="*")
    assert again.json()["generation"] == 3 and [move["action"] for move in again.json()["history"]] == ["set", "remove", "set"]
    assert_problem(live.client.post(f"{ALIAS}/rollback"), 409, "version_conflict", "has not pointed anywhere else")


def test_rolling_back_goes_one_step_further_each_time(live: Server) -> None:
    for version in (2, 3):
        put(live, {"version": version})
    for generation, version in ((4, 2), (5, 1)):
        back = live.client.post(f"{ALIAS}/rollback")
        assert (back.status_code, back.json()["generation"], back.json()["version"]) == (200, generation, version)
        assert version_of(live) == version
    assert_problem(live.client.post(f"{ALIAS}/rollback"), 409, "version_conflict")
    put(live, {"version": 4})
    assert live.client.post(f"{ALIAS}/rollback").json()["version"] == 1


def test_rolling_back_to_a_version_that_was_deleted_is_refused(live: Server) -> None:
    put(live, {"version": 2})
    assert live.client.delete("/v1/adapters/mood/versions/1").status_code == 204
    assert_problem(live.client.post(f"{ALIAS}/rollback"), 409, "version_conflict", "version 1 before, which was deleted")


def test_a_canary_gets_its_share_and_a_routing_key_always_the_same_version(live: Server) -> None:
    body = put(live, {"split": {"1": 75, "2": 25}}).json()
    assert (body["version"], body["split"]) == (1, {"1": 75, "2": 25})
    keys = [f"user-{number}" for number in range(120)]
    first = {key: version_of(live, key) for key in keys}
    assert {key: version_of(live, key) for key in keys[:20]} == {key: first[key] for key in keys[:20]}
    assert 12 <= Counter(first.values())[2] <= 50  # of 120: 30, by more than four standard deviations
    assert {version_of(live) for _ in range(60)} == {1, 2}
    put(live, {"split": {"1": 40, "2": 60}})
    assert all(version_of(live, key) == 2 for key in keys if first[key] == 2)  # who has the canary keeps it while it grows


def test_a_version_of_a_split_or_a_shadow_is_not_deleted(live: Server) -> None:
    put(live, {"split": {"1": 90, "2": 10}, "shadow": 3})
    for version in (1, 2, 3):
        assert_problem(live.client.delete(f"/v1/adapters/mood/versions/{version}"), 409, "version_conflict", "live")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"version": 1, "split": {"1": 1}}, 400, "either version or split"),
        ({}, 400, "either version or split"),
        ({"split": {}}, 400, "split"),
        ({"split": {"x": 1}}, 400, "split"),
        ({"split": {"1": "1"}}, 400, "split"),
        ({"split": {"1": 0}}, 422, "shares from 1"),
        ({"split": {"1": 1, "9": 1}}, 404, "no version 9"),
        ({"version": 1, "shadow": 1}, 422, "shadow 1"),
        ({"version": 1, "shadow": 9}, 404, "no version 9"),
        ({"version": 1, "require": {"macro_f1": "> 1"}}, 422, ">= NUMBER"),
    ],
)
def test_where_an_alias_cannot_point_is_said(live: Server, body: dict[str, Any], status: int, said: str) -> None:
    answer = put(live, body)
    assert answer.status_code == status and said in answer.json()["detail"]
    assert live.client.get(ALIAS).json()["generation"] == 1


def test_a_required_metric_holds_for_every_later_move_until_it_is_lifted(live: Server) -> None:
    assert put(live, {"version": 3, "require": {"macro_f1": ">= live"}}).status_code == 200
    refused = put(live, {"version": 2})
    assert_problem(refused, 422, "requirement_not_met", "version 2: macro_f1 is 0.6, and >= live requires 0.7")
    assert_problem(put(live, {"split": {"4": 50, "1": 50}}), 422, "requirement_not_met", "version 1")
    assert put(live, {"version": 4}).json()["require"] == {"macro_f1": ">= live"}
    assert_problem(put(live, {"version": 4, "require": {"test.f2": ">= 0.1"}}), 422, "requirement_not_met", "cannot be told")
    assert put(live, {"version": 1, "require": {}}).json()["require"] == {}


def test_a_shadow_answers_the_same_rows_and_is_never_heard(live: Server) -> None:
    texts = [f"text number {number}" for number in range(12)]
    alone = live.post("/v1/classify", {"texts": texts, "adapter": "mood:2"}).json()["results"]
    silent = live.post("/v1/classify", {"texts": texts, "adapter": "mood:3"}).json()["results"]
    put(live, {"version": 2, "shadow": 3})
    assert live.client.get(ALIAS).json()["comparison"] is None
    answers = live.post("/v1/classify", {"texts": texts, "adapter": "mood"}).json()["results"]
    assert [(one["version"], one["label"]) for one in answers] == [(2, one["label"]) for one in alone]
    compared = live.client.get(ALIAS).json()["comparison"]
    agreed = sum(one["label"] == other["label"] for one, other in zip(alone, silent, strict=True))
    drift = sum(abs(one["score"] - other["scores"][one["label"]]) for one, other in zip(alone, silent, strict=True))
    assert (compared["version"], compared["shadow"], compared["rows"], compared["errors"]) == (2, 3, 12, 0)
    assert compared["agreement"] == agreed / 12 and compared["score_drift"] == pytest.approx(drift / 12, abs=1e-5)
    assert compared["batch_ms"] > 0
    assert 'quickchange_shadow_rows{outcome="rows"} 12.0' in live.client.get("/metrics").text


def test_a_shadow_that_cannot_answer_disturbs_nobody(live: Server) -> None:
    put(live, {"version": 2, "shadow": 3})
    live.application.services.lifecycle.residency.drop(live.application.services.lifecycle.registry.version("mood", 3))
    (live.adapters / "mood/3/adapter_model.safetensors").write_bytes(b"x")
    assert version_of(live) == 2
    assert live.client.get(ALIAS).json()["comparison"]["errors"] == 1
    live.errors.lines.clear()


def test_a_shadow_of_a_vqa_adapter_is_compared_too(start: Start, towers: Towers) -> None:
    server = start()
    for seed in (1, 2):
        assert server.publish("vqa", vqa_bundle(*towers, ["a", "b", "c"], seed=seed)).status_code == 201
    server.client.put("/v1/adapters/vqa/aliases/live", json={"version": 1, "shadow": 2})
    form = {"question": "what is it"}
    answer = server.client.post("/v1/vqa", files={"image": ("i.png", image_file())}, data=form).json()
    assert answer["version"] == 1
    compared = server.client.get("/v1/adapters/vqa/aliases/live").json()["comparison"]
    assert (compared["rows"], compared["errors"], compared["agreement"] in (0, 1)) == (1, 0, True)


def test_the_audit_log_says_who_did_what_newest_first(live: Server) -> None:
    put(live, {"version": 2})
    live.client.delete("/v1/adapters/mood/versions/1")
    entries = live.client.get("/v1/audit").json()["entries"]
    assert [(entry["action"], entry["version"], entry["alias"]) for entry in entries[:3]] == [
        ("delete", 1, None),
        ("set", 2, "live"),
        ("publish", 4, None),
    ]
    assert {entry["adapter"] for entry in entries} == {"mood"} and all(entry["who"] for entry in entries)
    older = live.client.get("/v1/audit", params={"limit": 2, "before": entries[1]["id"]}).json()["entries"]
    assert older == entries[2:4]
    assert live.client.get("/v1/audit", params={"adapter": "other"}).json()["entries"] == []
    assert_problem(live.client.get("/v1/audit", params={"limit": 0}), 400, "bad_request", "limit")


def test_adapters_are_listed_page_by_page(live: Server, bundles: dict[str, Bundle]) -> None:
    for name in ("b", "c", "a"):
        live.publish(name, bundles["irony"])
    seen, after = list[str](), ""
    while True:
        page = live.client.get("/v1/adapters", params={"limit": 2, "after": after}).json()
        seen += [adapter["name"] for adapter in page["adapters"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["a", "b", "c", "mood"]
