"""Every call of the HTTP contract as a value: what to send, and how to read the answer. Both clients send these."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from service.client.failures import ServerError, bad_answer
from service.client.folders import read_file, read_folder
from service.errors import InvalidInput
from service.routes.schemas import AdapterList, AdapterView, Published, TextResult, TextResults, VqaResult, VqaResults
from service.routes.views import AliasView, AuditEntry, AuditLog, Readiness
from service.store.selector import check_name

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
PAGE = 1000  # adapters asked for at a time


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request, and how to read its answer.

    ``repeatable`` is whether doing it twice leaves what doing it once does, ``patient`` whether it may be made again
    when the server is busy.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str | Sequence[str]] | None = None
    files: Mapping[str, tuple[str, bytes]] | None = None
    repeatable: bool = True
    patient: bool = True


def sentiment(
    text: str,
    adapter: str = "sentiment",
    *,
    top_k: int | None = None,
    truncate: bool = True,
    routing_key: str | None = None,
) -> Call[TextResult]:
    """Classify the sentiment of a text; the same ``routing_key`` stays with the same version of a canary."""
    body = {"text": text, "adapter": adapter, "top_k": top_k, "truncate": truncate}
    return _predict("/v1/sentiment", _as(TextResult), routing_key, json=_given(body))


def sentiment_many(
    texts: Sequence[str],
    adapter: str = "sentiment",
    *,
    top_k: int | None = None,
    truncate: bool = True,
    routing_key: str | None = None,
) -> Call[list[TextResult]]:
    """Classify the sentiment of several texts, in order."""
    body = {"texts": list(texts), "adapter": adapter, "top_k": top_k, "truncate": truncate}
    return _predict("/v1/sentiment", _text_results, routing_key, json=_given(body))


def classify(
    text: str, adapter: str, *, top_k: int | None = None, truncate: bool = True, routing_key: str | None = None
) -> Call[TextResult]:
    """Classify a text by an adapter."""
    body = {"text": text, "adapter": adapter, "top_k": top_k, "truncate": truncate}
    return _predict("/v1/classify", _as(TextResult), routing_key, json=_given(body))


def classify_many(
    texts: Sequence[str],
    adapters: Sequence[str],
    *,
    top_k: int | None = None,
    truncate: bool = True,
    routing_key: str | None = None,
) -> Call[list[TextResult]]:
    """Classify texts by several adapters: all adapters of the first text, then of the second."""
    body = {"texts": list(texts), "adapters": list(adapters), "top_k": top_k, "truncate": truncate}
    return _predict("/v1/classify", _text_results, routing_key, json=_given(body))


def vqa(
    image: Path | bytes, question: str, adapter: str = "vqa", *, top_k: int | None = None, routing_key: str | None = None
) -> Call[VqaResult]:
    """Answer a question about an image, which is a file's path or its bytes."""
    form = {"question": question, "adapter": adapter, "top_k": top_k}
    return _predict("/v1/vqa", _as(VqaResult), routing_key, form=_given(form), files=_image(image))


def vqa_many(
    image: Path | bytes,
    questions: Sequence[str],
    adapter: str = "vqa",
    *,
    top_k: int | None = None,
    routing_key: str | None = None,
) -> Call[list[VqaResult]]:
    """Answer several questions about one image, in order."""
    form = {"questions": list(questions), "adapter": adapter, "top_k": top_k}
    return _predict("/v1/vqa", _vqa_results, routing_key, form=_given(form), files=_image(image))


def page(after: str | None = None, limit: int = PAGE) -> Call[AdapterList]:
    """The adapters whose names come after this one, at most so many; ``next`` is where the following page begins."""
    return Call("GET", "/v1/adapters", _as(AdapterList), query=_given({"limit": limit, "after": after}))


def adapter(name: str) -> Call[AdapterView]:
    """One adapter with its versions and aliases."""
    return Call("GET", _at(name), _as(AdapterView))


def push(folder: Path, name: str | None = None, alias: str | None = None, *, dry_run: bool = False) -> Call[Published]:
    """Upload the bundle, or plain PEFT adapter, in ``folder``, and point ``alias`` at it; a dry run does all but publish.

    Its manifest's name is used unless one is given, else the folder's. The same files again are the same version.
    """
    suggested, files = read_folder(folder)
    query: dict[str, str | int] = {"dry_run": "true"} if dry_run else {}
    form = {"alias": check_name(alias, "alias")} if alias else None
    return Call("POST", f"{_at(name or suggested)}/versions", _as(Published), query=query, files=files, form=form)


def file(name: str, version: int, filename: str) -> Call[bytes]:
    """The bytes of one of a version's files."""
    return Call("GET", f"{_at(name)}/versions/{version}/files/{filename}", _digested)


def delete(name: str, version: int) -> Call[None]:
    """Delete a version that no alias points at."""
    return Call("DELETE", f"{_at(name)}/versions/{version}", _nothing, repeatable=False)


def alias(name: str, alias: str) -> Call[AliasView]:
    """Where an alias points, where it pointed before, and how its shadow compares."""
    return Call("GET", _at(name, alias), _as(AliasView))


def set_alias(
    name: str,
    alias: str,
    version: int | None = None,
    *,
    split: Mapping[int, int] | None = None,
    shadow: int | None = None,
    require: Mapping[str, str] | None = None,
    if_match: int | None = None,
    create: bool = False,
) -> Call[AliasView]:
    """Point an alias at a version, or split it over several by per cent; the next request is answered by that.

    ``shadow`` is a version whose answers are compared and never returned, ``require`` what a version must reach, such
    as ``{"macro_f1": ">= live"}``. With ``if_match``, the generation that you saw, or with ``create``, it moves only if
    nobody else has moved it.
    """
    if (version is None) == (split is None):
        raise InvalidInput(f"alias {alias!r}: give either a version or a split")
    shares = {str(number): share for number, share in split.items()} if split is not None else None
    body = {"version": version, "split": shares, "shadow": shadow, "require": dict(require) if require else None}
    headers = {**_matching(if_match), **({"if-none-match": "*"} if create else {})}
    return Call(
        "PUT", _at(name, alias), _as(AliasView), headers=headers, json=_given(body), repeatable=not headers
    )  # a repeated move under a condition would find its own


def rollback(name: str, alias: str, *, if_match: int | None = None) -> Call[AliasView]:
    """Point an alias where it pointed before its last move."""
    path = f"{_at(name, alias)}/rollback"
    return Call("POST", path, _as(AliasView), headers=_matching(if_match), repeatable=False)


def remove_alias(name: str, alias: str) -> Call[None]:
    """Take an alias away; the versions that it pointed at stay."""
    return Call("DELETE", _at(name, alias), _nothing, repeatable=False)


def audit(limit: int = 100, *, before: int | None = None, adapter: str | None = None) -> Call[list[AuditEntry]]:
    """The last changes, the newest first: those before an entry's id, or of one adapter, if that is given."""
    query = {"limit": limit, "before": before, "adapter": check_name(adapter) if adapter else None}
    return Call("GET", "/v1/audit", lambda response: _as(AuditLog)(response).entries, query=_given(query))


def ready() -> Call[Readiness]:
    """Whether the server takes requests now; one that drains refuses with ``unavailable``."""
    return Call("GET", "/health/ready", _as(Readiness), patient=False)


def _predict(path: str, parse: Callable[[httpx.Response], T], routing_key: str | None, **content: Any) -> Call[T]:
    return Call("POST", path, parse, headers={"x-routing-key": routing_key} if routing_key else {}, **content)


def _at(name: str, alias: str | None = None) -> str:
    path = f"/v1/adapters/{check_name(name)}"
    return path if alias is None else f"{path}/aliases/{check_name(alias, 'alias')}"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _matching(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"if-match": f'"{generation}"'}


def _image(image: Path | bytes) -> dict[str, tuple[str, bytes]]:
    return {"image": ("image", image if isinstance(image, bytes) else read_file(image))}


def _as(model: type[M]) -> Callable[[httpx.Response], M]:
    def read(response: httpx.Response) -> M:
        try:
            return model.model_validate_json(response.content)
        except ValidationError:
            raise bad_answer(response) from None

    return read


def _text_results(response: httpx.Response) -> list[TextResult]:
    return _as(TextResults)(response).results


def _vqa_results(response: httpx.Response) -> list[VqaResult]:
    return _as(VqaResults)(response).results


def _nothing(_: httpx.Response) -> None:
    return None


def _digested(response: httpx.Response) -> bytes:
    """The body, whose ``Repr-Digest`` (RFC 9530) must be there and be right."""
    digest = base64.b64encode(hashlib.sha256(response.content).digest()).decode()
    if response.headers.get("repr-digest") != f"sha-256=:{digest}:":
        raise ServerError(f"{response.request.url.path} did not arrive whole: its sha256 is not the one announced")
    return response.content
