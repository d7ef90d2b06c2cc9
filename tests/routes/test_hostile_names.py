"""Names that are paths, or none at all: refused wherever a name may stand, and nothing is touched by them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from service.store.bundle import Bundle
from tests.support.hostile import ENDING, NAMES, part, request, status, surroundings, upload_form
from tests.support.server import Server, bundle_parts

JSON = "application/json"


@pytest.fixture(scope="module")
def alone(tiny_base: Path, bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose adapters' folder has a folder around it that is nobody else's."""
    around = tmp_path_factory.mktemp("around")
    (around / "x").write_text("precious")
    (around / "x.json").write_text("precious")
    with Server(tiny_base, around / "adapters") as running:
        for name in ("sentiment", "irony"):
            assert running.publish(name, bundles[name]).status_code == 201
        yield running
    assert running.errors.lines == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_address(alone: Server, bundles: dict[str, Bundle], name: str) -> None:
    before, form = surroundings(alone), upload_form(bundle_parts(bundles["irony"]))
    calls = [
        request("POST", f"/v1/adapters/{name}/versions", form),
        request("GET", f"/v1/adapters/{name}"),
        request("PUT", f"/v1/adapters/{name}/aliases/live", b'{"version": 1}', JSON),
        request("PUT", f"/v1/adapters/irony/aliases/{name}", b'{"version": 1}', JSON),
        request("DELETE", f"/v1/adapters/{name}/aliases/live"),
        request("DELETE", f"/v1/adapters/irony/aliases/{name}"),
        request("DELETE", f"/v1/adapters/{name}/versions/1"),
        request("DELETE", f"/v1/adapters/irony/versions/{name}"),
        request("POST", f"/v1/adapters/irony/versions?dry_run={name}", form),
        request("GET", f"/schema/assets/{name}"),
    ]
    for call in calls:
        assert 400 <= status(alone.raw(call)) < 500, call[:200]
    assert surroundings(alone) == before


@pytest.mark.parametrize("name", [unquote(name) for name in NAMES])
def test_a_name_in_json_and_in_a_form(alone: Server, bundles: dict[str, Bundle], name: str) -> None:
    before = surroundings(alone)
    for selector in (name, f"irony@{name}", f"irony:{name}", f"{name}@live", f"{name}:1"):
        assert alone.post("/v1/sentiment", {"text": "a", "adapter": selector}).status_code == 404
        assert alone.post("/v1/classify", {"text": "a", "adapters": ["irony", selector]}).status_code == 404
    alias = alone.upload("fresh", bundle_parts(bundles["irony"]), name)
    assert alias.status_code == 422
    assert alone.client.put("/v1/adapters/irony/aliases/live", json={"version": name}).status_code == 400
    assert surroundings(alone) == before


@pytest.mark.parametrize("name", [*NAMES, *(unquote(name) for name in NAMES if "%0" not in name)])
def test_a_name_of_a_part_and_of_a_file(alone: Server, bundles: dict[str, Bundle], name: str) -> None:
    before, parts = surroundings(alone), bundle_parts(bundles["irony"])
    path = "/v1/adapters/irony/versions"
    whole = b"".join(part(key, data, key) for key, data in parts.items())
    assert 400 <= status(alone.raw(request("POST", path, whole + part(name, b"x", "x") + ENDING))) < 500
    assert 400 <= status(alone.raw(request("POST", path, whole + part(name, b"x") + ENDING))) < 500
    named = b"".join(part(key, data, name) for key, data in parts.items())
    assert status(alone.raw(request("POST", path, named + ENDING))) == 200  # the same version; its files' names are ours
    assert surroundings(alone) == before
