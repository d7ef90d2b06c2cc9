"""The keys file while a server runs and while commands change it: noticed within a second, never seen half written."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import InvalidInput, StartupError
from service.routes.keys import ApiKey, is_key_line, key_line, new_key, parse_keys, parse_line, read_keys

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5  # how often the file is looked at, while requests ask for its keys
Stamp = tuple[int, int, int]
Edit = Callable[[Sequence[str]], Sequence[str]]


class KeysFile:
    """The keys in a file, read again when it has changed; one that cannot be read leaves those in force that were.

    Raises :class:`StartupError` when the file cannot be read at first, or has no key in it. It may lose its last key
    later: then nobody has one.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._problem = file, ""
        self._stamp = _stamp(file)
        self._keys = read_keys(file)
        self._next_look = time.monotonic() + LOOK_SECONDS
        if not self._keys:
            raise StartupError(f"QUICKCHANGE_API_KEYS_FILE={file}: no key in it")

    def current(self) -> tuple[ApiKey, ...]:
        """The keys in force now: the same object as long as the file is the same."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look()
        return self._keys

    def _look(self) -> None:
        stamp = _stamp(self._file)  # before reading: what is written meanwhile is seen at the next look
        if stamp is not None and stamp == self._stamp:
            return
        try:
            self._keys = read_keys(self._file)
        except StartupError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("%s; the keys read before stay in force", error)
        else:
            self._stamp, self._problem = stamp, ""
            log.info("API keys were read again: %d", len(self._keys))


def add_key(file: Path, owner: str, scopes: frozenset[str], **options: str | None) -> tuple[str, ApiKey]:
    """Make a key and append its line, making the file if there is none; returns the key itself, which is kept nowhere.

    Raises :class:`InvalidInput` for an owner, scope or option that is not valid, :class:`StartupError` for the file.
    """
    key = new_key()
    line = key_line(owner, key, scopes, options)
    _change(file, lambda lines: [*lines, line])
    return key, parse_line(line)


def revoke_keys(file: Path, named: str) -> list[ApiKey]:
    """Take out the key with this id, or every key of this owner; returns them.

    Raises :class:`InvalidInput` when there is none, :class:`StartupError` for the file.
    """
    gone: list[ApiKey] = []

    def edit(lines: Sequence[str]) -> Sequence[str]:
        keys = parse_keys(file, lines)
        gone.extend(key for key in keys if named in (key.id, key.owner))
        if not gone:
            known = ", ".join(f"{key.id} ({key.owner})" for key in keys[:20]) or "none"
            raise InvalidInput(f"no key {named[:80]!r} in {file}; accepted: an id or owner of {known}")
        return [line for line in lines if not is_key_line(line) or parse_line(line) not in gone]

    _change(file, edit)
    return gone


def _change(file: Path, edit: Edit) -> None:
    """Replace the file by what ``edit`` makes of its lines: whole and on disk, or not at all."""
    file = file.resolve()  # what a link points at is replaced, not the link
    try:
        with _locked(file.parent):
            known = file.stat() if file.exists() else None
            lines = file.read_text("utf-8").splitlines() if known else []
            parse_keys(file, lines)
            text = "".join(f"{line}\n" for line in edit(lines))
            _replace(file, text.encode(), known)
    except (OSError, UnicodeDecodeError):
        raise StartupError(f"QUICKCHANGE_API_KEYS_FILE={file}: this user cannot read and replace a file there") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one command at a time changes files of the folder; the lock is on itself, since its files are replaced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(file: Path, content: bytes, known: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as out:
            if known is not None and (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, known.st_uid, known.st_gid)  # so that the server's user can still read it
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
