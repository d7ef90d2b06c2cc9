"""The documentation page: complete, with examples that work, and without a network."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.server import Server


@pytest.fixture(scope="module")
def schema(server: Server) -> dict[str, Any]:
    response = server.client.get("/schema/openapi.json")
    described: dict[str, Any] = response.json()
    return described


def test_the_page_refers_to_this_server_alone_and_every_file_of_it_is_there(server: Server) -> None:
    page = server.client.get("/schema")
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/schema/assets/")
        assert server.client.get(link).status_code == 200
    assert "://" not in re.sub(r"http://www\.w3\.org\S*", "", page.text.split("swagger-ui-bundle.js")[0])


def test_every_address_of_the_contract_is_described(schema: dict[str, Any]) -> None:
    described = {(method, path) for path, item in schema["paths"].items() for method in item}
    assert described >= {
        ("post", "/v1/sentiment"), ("post", "/v1/classify"), ("post", "/v1/vqa"), ("get", "/v1/adapters"),
        ("get", "/v1/adapters/{name}"),
        ("post", "/v1/adapters/{name}/versions"), ("put", "/v1/adapters/{name}/aliases/{alias}"),
        ("delete", "/v1/adapters/{name}/aliases/{alias}"), ("delete", "/v1/adapters/{name}/versions/{version}"),
        ("get", "/v1/models"), ("get", "/health/live"), ("get", "/health/ready"), ("get", "/metrics"),
    }  # fmt: skip
    assert not [path for path in schema["paths"] if "assets" in path]


def test_every_call_has_a_summary_and_a_tag(schema: dict[str, Any]) -> None:
    calls = [call for item in schema["paths"].values() for call in item.values()]
    assert all(call["summary"] and call["tags"] for call in calls)


@pytest.mark.parametrize("path", ["/v1/sentiment", "/v1/classify"])
def test_an_example_body_can_be_sent_as_it_stands(server: Server, schema: dict[str, Any], path: str) -> None:
    examples = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["examples"]
    assert examples
    for example in examples:
        response = server.post(path, example)
        assert response.status_code == 200, response.text


def test_every_prediction_describes_its_errors(schema: dict[str, Any]) -> None:
    for path in ("/v1/sentiment", "/v1/classify", "/v1/vqa"):
        assert set(schema["paths"][path]["post"]["responses"]) >= {
            "200",
            "400",
            "404",
            "410",
            "413",
            "415",
            "422",
            "429",
            "503",
            "504",
        }


def test_vqa_is_described_as_a_form_and_as_json(schema: dict[str, Any]) -> None:
    content = schema["paths"]["/v1/vqa"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}


def test_an_upload_is_described_as_a_form_of_files(schema: dict[str, Any]) -> None:
    content = schema["paths"]["/v1/adapters/{name}/versions"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data"}
