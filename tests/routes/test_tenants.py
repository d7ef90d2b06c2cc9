"""A key with a prefix: adapters of other names do not exist for it, in no call and in no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.routes.keys import SCOPES, hashed
from service.store.bundle import Bundle
from tests.support.images import image_file
from tests.support.keys import bearer, line, write_keys
from tests.support.problems import assert_problem
from tests.support.server import Server

ROOT, ACME, OTHER = "root-key-3mN", "acme-key-6bV", "other-key-9cX"
FOREIGN = ["sentiment", "sentiment:1", "sentiment@live", "sentiment:9", "globex-irony", "nothing", "acm", "ACME-irony", ""]


@pytest.fixture(scope="module")
def shared(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Bundle]) -> Any:
    """A server with the adapters of two tenants, and some that are nobody's."""
    folder = tmp_path_factory.mktemp("tenants")
    keys = write_keys(
        folder / "keys", line(ROOT, *SCOPES), line(ACME, *SCOPES, prefix="acme-"), line(OTHER, *SCOPES, prefix="globex-")
    )
    with Server(tiny_base, folder / "adapters", api_keys_file=keys) as running:
        for name in ("sentiment", "acme-irony", "globex-irony", "vqa", "acme-vqa"):
            bundle = bundles["vqa" if name.endswith("vqa") else name.rpartition("-")[2]]
            assert running.publish(name, bundle, headers=bearer(ROOT)).status_code == 201
        yield running


def without_its_name(response: httpx.Response, name: str) -> tuple[int, str]:
    return response.status_code, response.text.replace(repr(name), "NAME")


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("selector", FOREIGN)
def test_predictions_find_no_other_adapter_and_name_none(shared: Server, selector: str, end: str) -> None:
    image = {"image": image_file(3)}
    answers = [
        shared.post("/v1/sentiment" + end, {"text": "a", "adapter": selector}, headers=bearer(ACME)),
        shared.post("/v1/classify" + end, {"text": "a", "adapter": selector}, headers=bearer(ACME)),
        shared.post("/v1/classify" + end, {"text": "a", "adapters": ["acme-irony", selector]}, headers=bearer(ACME)),
        shared.client.post("/v1/vqa" + end, files=image, data={"question": "q", "adapter": selector}, headers=bearer(ACME)),
    ]
    name = selector.partition(":")[0].partition("@")[0]
    for answer in answers:
        assert assert_problem(answer, 404, "adapter_not_found")["detail"] == f"no adapter named {name!r}"


@pytest.mark.parametrize("end", ["", "/"])
def test_the_default_adapters_are_no_exception(shared: Server, end: str) -> None:
    assert shared.post("/v1/sentiment" + end, {"text": "a"}, headers=bearer(ROOT)).status_code == 200
    for refused in (
        shared.post("/v1/sentiment" + end, {"text": "a"}, headers=bearer(ACME)),
        shared.client.post("/v1/vqa" + end, files={"image": image_file(3)}, data={"question": "q"}, headers=bearer(ACME)),
    ):
        assert_problem(refused, 404, "adapter_not_found")


@pytest.mark.parametrize("end", ["", "/"])
def test_a_tenant_has_its_own_adapters(shared: Server, end: str) -> None:
    for selector in ("acme-irony", "acme-irony:1", "acme-irony@live"):
        answer = shared.post("/v1/classify" + end, {"text": "a", "adapter": selector}, headers=bearer(ACME))
        assert answer.json()["adapter"] == "acme-irony"
    form: dict[str, Any] = {"files": {"image": image_file(3)}, "data": {"question": "q", "adapter": "acme-vqa"}}
    assert shared.client.post("/v1/vqa" + end, headers=bearer(ACME), **form).status_code == 200
    assert shared.client.get("/v1/adapters/acme-irony", headers=bearer(ACME)).status_code == 200


@pytest.mark.parametrize("end", ["", "/"])
def test_a_name_of_its_own_that_is_missing_is_refused_without_naming_others(shared: Server, end: str) -> None:
    missing = {"text": "a", "adapter": "acme-nothing"}
    for refused in (
        shared.post("/v1/classify" + end, missing, headers=bearer(ACME)),
        shared.client.get("/v1/adapters/acme-nothing" + end, headers=bearer(ACME)),
    ):
        assert assert_problem(refused, 404, "adapter_not_found")["detail"] == "no adapter named 'acme-nothing'"
    assert_problem(shared.post("/v1/classify" + end, missing, headers=bearer(ROOT)), 404, "adapter_not_found", "live: acme-irony")


def test_an_adapter_of_another_cannot_be_told_from_one_that_is_not_there(shared: Server, bundles: dict[str, Bundle]) -> None:
    def answers(name: str) -> list[tuple[int, str]]:
        address, mine = f"/v1/adapters/{name}", bearer(ACME)
        calls = [
            shared.client.get(address, headers=mine),
            shared.publish(name, bundles["irony"], headers=mine),
            shared.client.put(f"{address}/aliases/live", json={"version": 1}, headers=mine),
            shared.client.delete(f"{address}/aliases/live", headers=mine),
            shared.client.delete(f"{address}/versions/1", headers=mine),
        ]
        for call in calls:
            assert_problem(call, 404, "adapter_not_found")
        return [without_its_name(call, name) for call in calls]

    before = shared.tree()
    assert answers("globex-irony") == answers("globex-nothing") == answers("sentiment") == answers("acm")
    assert shared.tree() == before


def test_lists_have_the_tenants_own_alone(shared: Server) -> None:
    def listed(key: str) -> tuple[list[str], list[str]]:
        adapters, models = (shared.client.get(path, headers=bearer(key)).json() for path in ("/v1/adapters", "/v1/models"))
        return [adapter["name"] for adapter in adapters["adapters"]], [model["id"] for model in models["data"][1:]]

    assert listed(ACME) == (["acme-irony", "acme-vqa"],) * 2
    assert listed(OTHER) == (["globex-irony"],) * 2
    assert len(listed(ROOT)[0]) == 5


def test_what_tells_of_all_tenants_is_refused(shared: Server) -> None:
    assert_problem(shared.client.get("/metrics", headers=bearer(ACME)), 403, "forbidden", "acme-")
    assert shared.client.get("/metrics", headers=bearer(ROOT)).status_code == 200


def test_a_tenant_changes_its_own_adapters(shared: Server, bundles: dict[str, Bundle]) -> None:
    mine = bearer(ACME)
    assert shared.publish("acme-new", bundles["irony"], headers=mine).status_code == 201
    assert shared.publish("acme-new", bundles["irony-2"], headers=mine).json()["version"] == 2
    assert shared.client.delete("/v1/adapters/acme-new/versions/1", headers=mine).status_code == 204
    assert shared.client.delete("/v1/adapters/acme-new/aliases/live", headers=mine).status_code == 204
    assert shared.client.delete("/v1/adapters/acme-new/versions/2", headers=mine).status_code == 204


def test_a_routing_key_is_bounded_wherever_it_is_sent(shared: Server) -> None:
    for path in ("/v1/sentiment", "/v1/sentiment/"):
        for key, status in (("k" * 200, 200), ("k" * 201, 400)):
            answer = shared.post(path, {"text": "a"}, headers={**bearer(ROOT), "x-routing-key": key})
            assert answer.status_code == status
    refused = shared.post("/v1/sentiment", {"text": "a"}, headers={**bearer(ROOT), "x-routing-key": "k" * 201})
    assert_problem(refused, 400, "bad_request", "x-routing-key has 201 characters; at most 200 are accepted")
    assert shared.client.get("/health/live", headers={"x-routing-key": "k" * 201}).status_code == 200
    assert hashed(ROOT) not in refused.text
