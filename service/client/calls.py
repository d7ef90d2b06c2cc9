"""Every call of the HTTP contract: what to send, and how to read the answer. Both clients send these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from service.client.call import Call, digested, nothing, reading
from service.client.folders import read_file, read_folder
from service.errors import InvalidInput
from service.routes.schemas import AdapterList, AdapterView, Published, TextResult, TextResults, VqaResult, VqaResults
from service.routes.views import AliasView, AuditEntry, AuditLog, Readiness
from service.store.selector import check_name

T = TypeVar("T")
PAGE = 500  # adapters asked for at a time


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
    return _predict("/v1/sentiment", reading(TextResult), routing_key, json=_given(body))


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
    return _predict("/v1/classify", reading(TextResult), routing_key, json=_given(body))


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
    return _predict("/v1/vqa", reading(VqaResult), routing_key, form=_given(form), files=_image(image))


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
    return Call("GET", "/v1/adapters", reading(AdapterList), query=_given({"limit": limit, "after": after}))


def adapter(name: str) -> Call[AdapterView]:
    """One adapter with its versions and aliases."""
    return Call("GET", _at(name), reading(AdapterView))


def push(folder: Path, name: str | None = None, alias: str | None = None, *, dry_run: bool = False) -> Call[Published]:
    """Upload the bundle, or plain PEFT adapter, in ``folder``, and point ``alias`` at it; a dry run does all but publish.

    Its manifest's name is used unless one is given, else the folder's. The same files again are the same version.
    """
    suggested, files = read_folder(folder)
    query: dict[str, str | int] = {"dry_run": "true"} if dry_run else {}
    form = {"alias": check_name(alias, "alias")} if alias else None
    return Call("POST", f"{_at(name or suggested)}/versions", reading(Published), query=query, files=files, form=form)


def file(name: str, version: int, filename: str) -> Call[bytes]:
    """The bytes of one of a version's files."""
    return Call("GET", f"{_at(name)}/versions/{version}/files/{filename}", digested)


def delete(name: str, version: int) -> Call[None]:
    """Delete a version that no alias points at."""
    return Call("DELETE", f"{_at(name)}/versions/{version}", nothing, repeatable=False)


def alias(name: str, alias: str) -> Call[AliasView]:
    """Where an alias points, where it pointed before, and how its shadow compares."""
    return Call("GET", _at(name, alias), reading(AliasView))


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
        "PUT", _at(name, alias), reading(AliasView), headers=headers, json=_given(body), repeatable=not headers
    )  # a repeated move under a condition would find its own


def rollback(name: str, alias: str, *, if_match: int | None = None) -> Call[AliasView]:
    """Point an alias where it pointed before its last move."""
    path = f"{_at(name, alias)}/rollback"
    return Call("POST", path, reading(AliasView), headers=_matching(if_match), repeatable=False)


def remove_alias(name: str, alias: str) -> Call[None]:
    """Take an alias away; the versions that it pointed at stay."""
    return Call("DELETE", _at(name, alias), nothing, repeatable=False)


def audit(limit: int = 100, *, before: int | None = None, adapter: str | None = None) -> Call[list[AuditEntry]]:
    """The last changes, the newest first: those before an entry's id, or of one adapter, if that is given."""
    query = {"limit": limit, "before": before, "adapter": check_name(adapter) if adapter else None}
    return Call("GET", "/v1/audit", lambda response: reading(AuditLog)(response).entries, query=_given(query))


def ready() -> Call[Readiness]:
    """Whether the server takes requests now; one that drains refuses with ``unavailable``."""
    return Call("GET", "/health/ready", reading(Readiness), patient=False)


def _predict(path: str, parse: Callable[[httpx.Response], T], routing_key: str | None, **content: Any) -> Call[T]:
    if routing_key is not None and not (
        routing_key.isascii() and routing_key.isprintable() and routing_key == routing_key.strip()
    ):
        raise InvalidInput(f"routing key {routing_key[:80]!r} cannot be sent; expected printable ASCII")
    return Call("POST", path, parse, headers={"x-routing-key": routing_key} if routing_key else {}, **content)


def _at(name: str, alias: str | None = None) -> str:
    path = f"/v1/adapters/{check_name(name)}"
    return path if alias is None else f"{path}/aliases/{check_name(alias, 'alias')}"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _matching(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"if-match": f'"{generation}"'}


def _image(image: Path | bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("image", image if isinstance(image, bytes) else read_file(image)))]


def _text_results(response: httpx.Response) -> list[TextResult]:
    return reading(TextResults)(response).results


def _vqa_results(response: httpx.Response) -> list[VqaResult]:
    return reading(VqaResults)(response).results
