"""Where the adapters' files are: a folder, or a bucket by its URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from service.errors import StartupError
from service.store.bucket import Bucket
from service.store.disk import Disk
from service.store.files import ObjectStore

ACCEPTED = "a folder, file:///folder, or s3://bucket/prefix with AWS_* variables"
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"(?:/[A-Za-z0-9!_.*'()=-]+)*/?")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
SECRET = re.compile(r"^([^:/]*://)?.*@")  # what a URL may hold before its host


def open_files(url: str | None, adapters_dir: Path) -> ObjectStore:
    """The store at ``QUICKCHANGE_STORE_URL``, or in the adapters' folder where that is not set.

    A folder is made where it is missing; a bucket is not asked anything yet. Raises :class:`StartupError` for a URL that names
    neither, and a folder that cannot be one.
    """
    if url is None:
        return _folder(adapters_dir, f"QUICKCHANGE_ADAPTERS_DIR={adapters_dir}")
    shown = f"QUICKCHANGE_STORE_URL={_without_secrets(url)}"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong(shown, "not a URL") from None
    match parts.scheme:
        case "":
            return _folder(_path(url, shown), shown)
        case "file":
            if parts.netloc not in ("", "localhost"):
                raise _wrong(shown, "a file URL has three slashes")
            return _folder(_path(unquote(parts.path), shown), shown)
        case "s3":
            return ObjectStore(_bucket(parts, shown))
    raise _wrong(shown, "no store that is known")


def _path(path: str, shown: str) -> Path:
    if not path or "\0" in path:
        raise _wrong(shown, "names no folder")
    return Path(path)


def _folder(root: Path, shown: str) -> ObjectStore:
    try:
        return ObjectStore(Disk(root))
    except OSError:
        raise StartupError(f"{shown}: not a folder that can be read and written") from None


def _bucket(parts: SplitResult, shown: str) -> Bucket:
    if "@" in parts.netloc + parts.path:
        raise _wrong(shown, "credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not BUCKET.fullmatch(parts.netloc):
        raise _wrong(shown, f"{parts.netloc[:80]!r} is no name of a bucket")
    prefix = parts.path.strip("/")
    if not PREFIX.fullmatch(parts.path) or parts.query or parts.fragment or {".", ".."} & set(prefix.split("/")):
        raise _wrong(shown, "a prefix is made of letters, digits, and any of !_.*'()=-, with single slashes between")
    return Bucket(parts.netloc, prefix, _endpoint())


def _endpoint() -> str | None:
    variable = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if variable is None:
        return None
    url = os.environ[variable]
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in url and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise StartupError(f"{variable}={_without_secrets(url)}: not an endpoint; accepted: http://host:port or https://host")
    return url


def _wrong(shown: str, why: str) -> StartupError:
    return StartupError(f"{shown}: {why}; accepted: {ACCEPTED}")


def _without_secrets(url: str) -> str:
    return SECRET.sub(r"\1…@", url.partition("?")[0])[:200]
