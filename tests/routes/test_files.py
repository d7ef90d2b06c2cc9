"""The files of a version over HTTP: exactly those that were published, and nothing else of the disk."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest

from service.store.bundle import Bundle
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Start


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, CARD, *IMAGES, MANIFEST])
def test_a_file_comes_as_it_is_stored_with_its_digest(server: Server, file: str) -> None:
    response = server.client.get(f"/v1/adapters/irony/versions/2/files/{file}")
    assert response.status_code == 200 and response.headers["content-type"] == "application/octet-stream"
    assert response.content == (server.adapters / "irony" / "2" / file).read_bytes()
    digest = base64.b64encode(hashlib.sha256(response.content).digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert response.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize("file", ["registry.json", "..%2Fregistry.json", "%2e%2e%2fregistry.json", "README.md%00", "x" * 300])
def test_no_other_file_is_given_out(server: Server, file: str) -> None:
    response = server.client.get(f"/v1/adapters/irony/versions/2/files/{file}")
    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("file", [CARD, *IMAGES])
def test_a_version_without_card_and_images_has_no_such_file(server: Server, file: str) -> None:
    response = server.client.get(f"/v1/adapters/vqa/versions/1/files/{file}")
    assert_problem(response, 404, "not_found", f"vqa:1 has no file '{file}'; a version may have")


def test_what_is_not_there_is_not_found(server: Server) -> None:
    assert_problem(server.client.get(f"/v1/adapters/irony/versions/9/files/{MANIFEST}"), 404, "adapter_not_found")
    assert_problem(server.client.get(f"/v1/adapters/irony/versions/3/files/{MANIFEST}"), 410, "adapter_deleted")
    assert_problem(server.client.get(f"/v1/adapters/nope/versions/1/files/{MANIFEST}"), 404, "adapter_not_found")


def test_a_damaged_version_is_not_given_out(start: Start, bundles: dict[str, Bundle]) -> None:
    live = start()
    live.publish("irony", bundles["irony"])
    weights = live.adapters / "irony" / "1" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    for file in (WEIGHTS, CONFIG):
        response = live.client.get(f"/v1/adapters/irony/versions/1/files/{file}")
        assert_problem(response, 422, "adapter_incompatible", f"{WEIGHTS} is not the file that {MANIFEST} describes")
