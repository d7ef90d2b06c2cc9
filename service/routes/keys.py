"""API keys and the file that they are kept in, one a line: ``owner sha256 scope,scope [prefix=P] [rate=R] [concurrency=C]``.

A key is 32 random bytes, so a plain SHA-256 of it is enough: there is nothing to guess that a salt or a slow hash would
protect. Nothing here needs the framework, for the command line reads and writes the file too.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidInput, StartupError
from service.store.selector import NAME

PUBLIC = "public"  # what stands in a scope's place where no key is asked for
PREDICT, READ, WRITE, DELETE = "predict", "adapters:read", "adapters:write", "adapters:delete"
SCOPES = (PREDICT, READ, WRITE, DELETE)
KEY_BYTES, ID_DIGITS, FIELDS = 32, 8, 3
SHA256 = re.compile(r"[0-9a-f]{64}")
OWNER = re.compile(r"[^\s#]\S{0,79}")
ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
OPTIONS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "prefix": (NAME, "what adapter names may begin with, such as acme-"),
    "rate": (re.compile(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})?"), "requests a second, from 0.001 to 999999"),
    "concurrency": (re.compile(r"[1-9][0-9]{0,5}"), "requests at a time, from 1 to 999999"),
}
GRAMMAR = (
    "'owner sha256 scope,scope [prefix=acme-] [rate=50] [concurrency=8]', "
    f"with scopes out of {', '.join(SCOPES)}, and each key once"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Whose key it is, the SHA-256 of its text, and what it may do.

    ``prefix`` is what the names of its adapters begin with; it may begin ``rate`` requests a second and have
    ``concurrency`` of them in work, where these are given.
    """

    owner: str
    sha256: str
    scopes: frozenset[str]
    prefix: str = ""
    rate: float | None = None
    concurrency: int | None = None

    @property
    def id(self) -> str:
        """What people call the key: the beginning of its hash, which tells nothing of the key."""
        return self.sha256[:ID_DIGITS]


def new_key() -> str:
    """The text of another key."""
    return secrets.token_urlsafe(KEY_BYTES)


def hashed(key: str) -> str:
    """What the file has of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_line(owner: str, key: str, scopes: frozenset[str], options: Mapping[str, str | None] | None = None) -> str:
    """The line of the keys file for a key; the key itself is not in it.

    Raises :class:`InvalidInput` for an owner, scope or option that cannot stand there.
    """
    if not OWNER.fullmatch(owner) or not owner.isprintable() or ID.fullmatch(owner):
        raise InvalidInput(
            f"owner {owner[:80]!r} is not valid; accepted: one word, at most 80 characters, and not like a key's id"
        )
    given = [f"{name}={value}" for name, value in (options or {}).items() if value is not None]
    listed = ",".join(sorted(scopes))
    _scopes(listed)
    for option in given:
        _option(option)
    return " ".join([owner, hashed(key), listed, *given])


def parse_line(line: str) -> ApiKey:
    """The key in a line; raises :class:`InvalidInput`, naming what cannot stand there."""
    words = line.split()
    if len(words) < FIELDS or not SHA256.fullmatch(words[1]):
        raise InvalidInput(f"that is not {GRAMMAR}")
    owner, sha256, scopes, *options = words
    granted = _scopes(scopes)
    found = dict(_option(option) for option in options)
    if len(found) < len(options):
        raise InvalidInput(f"an option is given twice in {' '.join(options)[:200]!r}")
    return ApiKey(
        owner,
        sha256,
        granted,
        found.get("prefix", ""),
        float(found["rate"]) if "rate" in found else None,
        int(found["concurrency"]) if "concurrency" in found else None,
    )


def is_key_line(line: str) -> bool:
    """Whether a line of the file is for a key, and not empty or a comment."""
    return bool(line.strip()) and not line.startswith("#")


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """The keys in a file; empty lines and ``#`` comments are skipped.

    Raises :class:`StartupError` when it cannot be read, naming the line, but nothing in it: that might be a key.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise StartupError(f"QUICKCHANGE_API_KEYS_FILE={file}: no readable file there") from None
    return parse_keys(file, text.splitlines())


def parse_keys(file: Path, lines: Sequence[str]) -> tuple[ApiKey, ...]:
    """The keys in the lines of a file; raises as :func:`read_keys` does."""
    found: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if not is_key_line(line):
            continue
        try:
            key = parse_line(line)
        except InvalidInput:
            key = None
        if key is None or key.sha256 in found:  # one key with two sets of rights would have the wrong one
            raise StartupError(f"QUICKCHANGE_API_KEYS_FILE={file}: line {number} is not {GRAMMAR}")
        found[key.sha256] = key
    return tuple(found.values())


def _scopes(listed: str) -> frozenset[str]:
    scopes = frozenset(listed.split(","))
    unknown = sorted(scopes - set(SCOPES))
    if unknown:
        raise InvalidInput(f"scope {unknown[0][:80]!r} is not known; accepted: {', '.join(SCOPES)}")
    return scopes


def _option(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    pattern, accepted = OPTIONS.get(name, (None, ""))
    if pattern is None:
        raise InvalidInput(f"option {name[:80]!r} is not known; accepted: {', '.join(OPTIONS)}")
    if not pattern.fullmatch(value):
        raise InvalidInput(f"{name} {value[:80]!r} is not valid; accepted: {accepted}")
    return name, value
