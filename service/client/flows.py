"""What takes several calls: a generator that yields each call and is given its answer, so that both clients can run it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.client import calls
from service.client.call import Call
from service.client.failures import ServerError
from service.client.folders import check_absent, write_folder
from service.errors import AdapterNotFound
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from service.store.selector import VERSION, Ref, check_name, split_selector

T = TypeVar("T")
Flow = Generator[Call[Any], Any, T]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A flow's result."""

    result: T


def advance(flow: Flow[T], answer: Any = None) -> Call[Any] | Done[T]:
    """Give a flow the answer to its last call, if there was one, and get the next call or the result."""
    try:
        return flow.send(answer)
    except StopIteration as end:
        return Done(end.value)


def pull(selector: str, folder: Path | None = None) -> Flow[Path]:
    """Download a version into a new folder, ``NAME-VERSION`` here unless another is named, and return its path.

    Every file is compared with the manifest. Raises :class:`InvalidInput` when the folder is there already, and then,
    as after any failure, nothing is written.
    """
    if folder is not None:
        check_absent(folder)
    ref: Ref = yield from resolve(selector)
    folder = folder or Path(f"{ref.name}-{ref.version}")
    check_absent(folder)
    manifest: bytes = yield calls.file(ref.name, ref.version, MANIFEST)
    files = {}
    for name, expected in _sums(manifest, ref).items():
        files[name] = data = yield calls.file(ref.name, ref.version, name)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != expected:
            raise ServerError(f"{name} of {ref} is not the file that its {MANIFEST} describes; nothing was written")
    write_folder(folder, {**files, MANIFEST: manifest})
    return folder


def resolve(selector: str) -> Flow[Ref]:
    """The version that a selector means; raises :class:`AdapterNotFound` when there is no such alias or number."""
    name, alias, version = split_selector(selector)
    check_name(name)
    if version is not None:
        if not VERSION.fullmatch(version):
            raise AdapterNotFound(f"adapter {name!r} has no version {version[:80]!r}; expected a whole number")
        return Ref(name, int(version))
    aliases = (yield calls.adapter(name)).aliases
    if alias not in aliases:
        raise AdapterNotFound(f"adapter {name!r} has no alias {str(alias)[:80]!r}; it has {', '.join(aliases) or 'none'}")
    return Ref(name, aliases[alias])


def _sums(manifest: bytes, ref: Ref) -> dict[str, str]:
    """What the sha256 of each file must be, by a manifest, which may name no other files than a version has."""
    try:
        sums = dict(json.loads(manifest)["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        sums = {}
    if not {CONFIG, WEIGHTS} <= set(sums) <= {CONFIG, WEIGHTS, CARD, *IMAGES}:
        raise ServerError(f"the {MANIFEST} of {ref} does not describe a version's files; nothing was written")
    return sums
