"""``GET …/versions/{version}/files/{file}``: an adapter version's files as they are stored, for ``quickchange adapters pull``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from service.errors import NotFound
from service.routes.keys import READ
from service.routes.problems import documented
from service.routes.services import Services
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from service.store.weights import Data

FILES = (CONFIG, WEIGHTS, CARD, *IMAGES, MANIFEST)
PART = 2**20  # bytes sent at a time


@get(
    "/v1/adapters/{name:str}/versions/{version:int}/files/{file:str}",
    opt={"scope": READ},
    tags=["adapters"],
    summary="Download a version's file",
    media_type="application/octet-stream",
    responses=documented(400, 401, 403, 404, 410, 422, 429, 503),
    sync_to_thread=True,
)
def version_file(name: FromPath[str], version: FromPath[int], file: FromPath[str], services: NamedDependency[Services]) -> Stream:
    """One of its files, checked against the manifest; its sha256 is in the header ``Repr-Digest`` (RFC 9530)."""
    registry = services.lifecycle.registry
    ref = registry.version(name, version)
    contents = registry.read(ref).contents if file in FILES else {}
    if file not in contents:
        raise NotFound(f"{ref} has no file {file[:80]!r}; a version may have {', '.join(FILES)}")
    data = contents[file]
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    headers = {"repr-digest": f"sha-256=:{digest}:", "content-length": str(len(data))}
    return Stream(_parts(data), headers=headers)


def _parts(data: Data) -> Iterator[bytes]:
    """The data in parts: a copy of it all would double what a download takes."""
    for start in range(0, len(data), PART):
        yield bytes(data[start : start + PART])
