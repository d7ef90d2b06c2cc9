"""The running server keeps to its own description, whatever is sent to it: statuses, content types and bodies."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.store.bundle import Bundle

if TYPE_CHECKING:
    from tests.conftest import Start

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KNOWN: dict[str, Any] = {"name": "irony", "alias": "live", "version": 1, "file": "manifest.json", "job": "0" * 20}
CALLS = 13  # at least
SETTINGS = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_call_answers_as_it_is_described(start: Start, bundles: dict[str, Bundle], mode: GenerationMode) -> None:
    server = start()
    for name in ("sentiment", "irony", "vqa"):
        server.publish(name, bundles[name])
    server.publish("irony", bundles["irony-2"])
    statuses: dict[str, Counter[int]] = {}
    for found in schemathesis.openapi.from_url(f"{server.url}/schema/openapi.json").get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        known = {parameter.name: KNOWN[parameter.name] for parameter in operation.path_parameters}
        statuses[operation.label] = Counter()
        for fixed in [None, known] if known else [None]:

            @SETTINGS
            @given(operation.as_strategy(generation_mode=mode, path_parameters=fixed))
            def call(case: Any) -> None:
                response = case.call_and_validate(base_url=server.url, checks=CHECKS)
                statuses[case.operation.label][response.status_code] += 1

            with suppress(Unsatisfiable):  # nothing about this call can be wrong
                call()
    assert server.errors.lines == []
    if mode.is_positive:
        assert all(seen.total() for seen in statuses.values()) and len(statuses) >= CALLS
    assert statuses["POST /v1/sentiment"][400] or mode.is_positive
    assert statuses["GET /v1/adapters"][200] or mode.is_negative
