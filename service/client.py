"""Calls to a running server from the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from service.errors import QuickchangeError
from service.store.layout import CARD, CONFIG, MANIFEST, WEIGHTS
from service.store.selector import check_name


class ServerError(QuickchangeError):
    """The server refused the call or could not be reached."""

    code = "server"


class Client:
    """A connection to the server at ``url``; ``key`` is sent as a bearer token."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 60.0) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def adapters(self) -> list[dict[str, Any]]:
        """Every adapter that the server knows."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/adapters")["adapters"]
        return found

    def adapter(self, name: str) -> dict[str, Any]:
        """One adapter with its versions and aliases."""
        return self._call("GET", f"/v1/adapters/{check_name(name)}")

    def push(self, folder: Path, name: str | None = None, alias: str | None = None) -> dict[str, Any]:
        """Upload the bundle, or plain PEFT adapter, in ``folder``; its manifest's name is used unless one is given.

        Raises :class:`ServerError` with the server's own words when it is refused.
        """
        for required in (CONFIG, WEIGHTS):
            if not (folder / required).is_file():
                raise ServerError(f"{folder}: no {required} in that folder; a bundle or a PEFT adapter is expected")
        parts = {"adapter_config": CONFIG, "adapter_model": WEIGHTS, "manifest": MANIFEST, "card": CARD}
        files = {part: (file, (folder / file).read_bytes()) for part, file in parts.items() if (folder / file).is_file()}
        name = check_name(name or _name_of(folder))
        return self._call("POST", f"/v1/adapters/{name}/versions", files=files, data={"alias": alias} if alias else None)

    def set_alias(self, name: str, alias: str, version: int) -> dict[str, Any]:
        """Point an alias at a version."""
        return self._call(
            "PUT", f"/v1/adapters/{check_name(name)}/aliases/{check_name(alias, 'alias')}", json={"version": version}
        )

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        self._call("DELETE", f"/v1/adapters/{check_name(name)}/aliases/{check_name(alias, 'alias')}")

    def delete(self, name: str, version: int) -> None:
        """Delete a version."""
        self._call("DELETE", f"/v1/adapters/{check_name(name)}/versions/{version}")

    def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **content)
        except httpx.HTTPError:
            raise ServerError(f"no server answers at {self._url}; start one with 'make serve', or name it by --server") from None
        if response.is_success:
            answer: dict[str, Any] = response.json() if response.content else {}
            return answer
        raise ServerError(_refusal(response, self._url))


def _refusal(response: httpx.Response, url: str) -> str:
    try:
        problem = response.json()
        return f"{problem['status']} {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{url} answered {response.status_code}, but is no Quickchange server"


def _name_of(folder: Path) -> str:
    manifest = folder / MANIFEST
    try:
        content = json.loads(manifest.read_bytes()) if manifest.is_file() else {}
    except ValueError:
        content = {}
    name = content.get("name") if isinstance(content, Mapping) else None
    return name if isinstance(name, str) else folder.resolve().name
