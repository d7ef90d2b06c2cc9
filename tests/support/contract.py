"""A small HTTP server that speaks the contract of aliases, paging and the audit log, and misbehaves when it is told to."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

ALIAS = re.compile(r"/v1/adapters/([^/]+)/aliases/([^/]+)(/rollback)?")
ADAPTER = re.compile(r"/v1/adapters/([^/]+)")


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message[str, str]  # by name, whatever its case
    body: bytes


@dataclass
class Reply:
    """What to answer; ``hang_up`` closes the connection without a word."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


def problem(status: int, code: str, detail: str, **headers: str) -> Reply:
    return Reply(status, {"title": "t", "status": status, "code": code, "detail": detail}, headers)


class ContractServer:
    """Keeps adapters and aliases in memory; ``first`` has answers to give before any of its own."""

    def __init__(self) -> None:
        self.first: list[Reply] = []
        self.requests: list[Request] = []
        self.adapters: dict[str, list[int]] = {}
        self.histories: dict[tuple[str, str], list[dict[str, Any]]] = {}
        contract = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline()
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                split = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = Request(self.command, split.path, dict(parse_qsl(split.query)), self.headers, body)
                contract.requests.append(request)
                reply = contract.first.pop(0) if contract.first else contract.answer(request)
                if reply.hang_up:
                    self.close_connection = True
                    return
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(content)), **reply.headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it that
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, name="contract")
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, request: Request) -> Reply:
        """What a server that works answers."""
        if (found := ALIAS.fullmatch(request.path)) is not None:
            return self._alias(request, found[1], found[2], is_rollback=found[3] is not None)
        if request.path == "/v1/adapters":
            return self._page(request)
        if request.path == "/v1/audit":
            return self._audit(request)
        if request.path == "/health/ready":
            return Reply(200, {"status": "degraded", "problems": ["the store does not answer"]})
        found = ADAPTER.fullmatch(request.path)
        if found is None or found[1] not in self.adapters:
            return problem(404, "adapter_not_found", f"no adapter named {request.path!r}")
        return Reply(200, self._adapter(found[1]))

    def _adapter(self, name: str) -> dict[str, Any]:
        described = {"created": "2026-11-23T10:00:00Z", "base": {}, "metrics": {"test": {"macro_f1": 0.5}}, "state": "loaded"}
        aliases = {alias: self._heaviest(h[-1]) for (adapter, alias), h in self.histories.items() if adapter == name}
        versions = [{"version": number, "digest": f"sha256:{number:064}", **described} for number in self.adapters[name]]
        return {"name": name, "task": "text-classification", "labels": ["a", "b"], "versions": versions, "aliases": aliases}

    def _page(self, request: Request) -> Reply:
        after, limit = request.query.get("after", ""), int(request.query.get("limit", "1000"))
        names = sorted(name for name in self.adapters if name > after)
        more = names[limit - 1] if len(names) > limit else None
        return Reply(200, {"adapters": [self._adapter(name) for name in names[:limit]], "next": more})

    def _alias(self, request: Request, name: str, alias: str, *, is_rollback: bool) -> Reply:
        history = self.histories.get((name, alias), [])
        if request.method != "PUT" and not history:
            return problem(404, "adapter_not_found", f"adapter {name!r} has no alias {alias!r}")
        generation = len(history)
        wanted = request.headers.get("if-match")
        if (wanted is not None and wanted != f'"{generation}"') or ("if-none-match" in request.headers and history):
            return problem(412, "precondition_failed", f"alias {alias!r} is at generation {generation}")
        if request.method == "PUT":
            body = json.loads(request.body)
            history = [*history, self._move(body, "set", generation + 1)]
        elif is_rollback:
            if generation == 1:
                return problem(409, "version_conflict", f"alias {alias!r} has nothing to go back to")
            history = [*history, {**history[-2], "action": "rollback", "generation": generation + 1}]
        elif request.method == "DELETE":
            del self.histories[name, alias]
            return Reply(204, b"")
        self.histories[name, alias] = history
        return self._view(name, alias)

    def _move(self, body: dict[str, Any], action: str, generation: int) -> dict[str, Any]:
        split = body.get("split") or {str(body["version"]): 100}
        at = datetime(2026, 11, 23, 10, generation % 60, tzinfo=UTC).isoformat()
        return {
            "generation": generation, "split": split, "shadow": body.get("shadow"), "action": action, "who": "ann", "at": at,
            "require": body.get("require", {}),
        }  # fmt: skip

    def _view(self, name: str, alias: str) -> Reply:
        history = self.histories[name, alias]
        last = history[-1]
        view = {
            "adapter": name, "alias": alias, "generation": last["generation"], "version": self._heaviest(last),
            "split": last["split"], "shadow": last["shadow"], "require": last["require"], "history": history,
            "comparison": {
                "version": 1, "shadow": 2, "rows": 12, "errors": 0, "agreement": 0.75, "score_drift": 0.1, "batch_ms": 5.0,
            } if last["shadow"] else None,
        }  # fmt: skip
        return Reply(200, view, {"etag": f'"{last["generation"]}"'})

    def _audit(self, request: Request) -> Reply:
        changes = [(name, alias, move) for (name, alias), history in self.histories.items() for move in history]
        entries = [
            {"id": number, "at": move["at"], "who": move["who"], "action": f"alias.{move['action']}", "adapter": name,
             "version": self._heaviest(move), "alias": alias, "detail": json.dumps({"split": move["split"]})}
            for number, (name, alias, move) in enumerate(changes, 1)
            if name == request.query.get("adapter", name) and number < int(request.query.get("before", "1000000"))
        ]  # fmt: skip
        return Reply(200, {"entries": entries[::-1][: int(request.query["limit"])]})

    @staticmethod
    def _heaviest(move: dict[str, Any]) -> int:
        return int(max(move["split"], key=lambda version: move["split"][version]))
