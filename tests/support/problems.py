"""What every error of the HTTP contract has in common."""

from __future__ import annotations

import re
from typing import Any

import httpx

# Traces of a library, of Python, or of this machine.
LEAKS = re.compile(
    r"Traceback|litestar|pydantic|msgspec|pillow|\bPIL\b|torch|site-packages|\.py\b|0x[0-9a-f]{6}|[a-z]Error\b|[a-z]Exception\b"
    r"|(^|[\s'\"])/(tmp|home|root|usr|work|var|etc)\b"
    r"|Input should|Field required|Extra inputs|HeaderTooLarge|Expected `"
)


def assert_problem(response: httpx.Response, status: int, code: str, *words: str) -> dict[str, Any]:
    """Check that the answer is this error, by RFC 9457, in our own words, one of which are ``words``; return its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["title"] and body["detail"] and "\n" not in body["detail"]
    for text in [body["detail"], *body.get("faults", [])]:
        assert not LEAKS.search(text), text
    for word in words:
        assert word in body["detail"], body["detail"]
    assert response.headers["x-request-id"]
    return body
