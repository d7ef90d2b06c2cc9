"""API keys for tests: what a caller sends, and what the file has."""

from __future__ import annotations

from pathlib import Path

from service.routes.keys import key_line


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


def line(key: str, *scopes: str, **options: str) -> str:
    """A line of the keys file; the key's owner is the part before its first '-'."""
    return key_line(key.partition("-")[0], key, frozenset(scopes), options) + "\n"


def write_keys(file: Path, *lines: str) -> Path:
    """A keys file of these lines."""
    file.write_text("".join(lines))
    return file
