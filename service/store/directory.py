"""Adapter versions as folders on a local disk: ``<root>/<name>/<version>/``."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.errors import AdapterIncompatible, AdapterNotFound, StoreFull, Unavailable
from service.store.bundle import Bundle, Manifest, parse_manifest, read_bundle
from service.store.layout import MANIFEST
from service.store.selector import NAME, VERSION, Ref
from service.store.weights import Data

log = logging.getLogger(__name__)
STATE = "registry.json"
INCOMING = ".incoming-"


class DirectoryStore:
    """Keeps bundles in folders that appear whole or not at all; a version, once there, is never written again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Adapters that have a folder, sorted; none of the folders is looked into."""
        with os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_dir())

    def versions(self, name: str) -> list[int]:
        """Complete versions of an adapter: a folder without its manifest does not count.

        What an interrupted change left in the adapter's folder is swept away, so no change of it may be under way.
        """
        numbers = []
        with _read_errors(name), os.scandir(self.root / name) as entries:
            for entry in entries:
                if entry.name.startswith(INCOMING):
                    _remove(Path(entry.path))
                elif VERSION.fullmatch(entry.name) and Path(entry.path, MANIFEST).is_file():
                    numbers.append(int(entry.name))
        return sorted(numbers)

    def manifest(self, ref: Ref) -> Manifest:
        """A version's manifest, read and parsed anew.

        Raises :class:`AdapterNotFound` when it is not there, :class:`AdapterIncompatible` when it is damaged, and
        :class:`Unavailable` when the disk does not give it now.
        """
        with _read_errors(ref):
            return parse_manifest((self._folder(ref) / MANIFEST).read_bytes())

    def read(self, ref: Ref) -> Bundle:
        """A version, whole and checked against its manifest; raises as :meth:`manifest` does."""
        folder = self._folder(ref)
        with _read_errors(ref):
            manifest = (folder / MANIFEST).read_bytes()
            try:
                return read_bundle(folder, manifest)
            except AdapterIncompatible:
                (folder / MANIFEST).stat()  # not there any more: the version is not damaged but just being deleted
                raise

    def publish(self, ref: Ref, bundle: Bundle) -> None:
        """Write a new version durably; raises :class:`StoreFull` when the disk does not take it."""
        parent = self._folder(ref).parent
        staging = parent / f"{INCOMING}{uuid.uuid4().hex}"
        with _disk_errors():
            try:
                staging.mkdir(parents=True)
                for name, data in bundle.contents.items():
                    _write_durably(staging / name, data)
                _sync(staging)
                staging.rename(self._folder(ref))
                _sync(parent)
            finally:
                _remove(staging)

    def delete(self, ref: Ref) -> None:
        """Remove a version's files, its manifest first, so that an interrupted removal leaves no version."""
        folder = self._folder(ref)
        (folder / MANIFEST).unlink(missing_ok=True)
        _remove(folder)

    def state(self, name: str) -> dict[str, Any]:
        """What was last saved about an adapter beside its versions; empty when nothing was.

        Raises :class:`AdapterIncompatible` when it is damaged, :class:`Unavailable` when the disk does not give it now.
        """
        file = self.root / name / STATE
        with _read_errors(name):
            data = file.read_bytes() if file.is_file() else b"{}"
        try:
            state: dict[str, Any] = json.loads(data)
            dict(state.get("aliases", {})), frozenset(state.get("deleted", ()))
        except (ValueError, TypeError, AttributeError):
            raise AdapterIncompatible([f"{STATE} of adapter {name!r} is damaged"]) from None
        return state

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Replace what is known of an adapter beside its versions, in one atomic and durable step."""
        folder = self.root / name
        staging = folder / f"{INCOMING}{uuid.uuid4().hex}"
        with _disk_errors():
            try:
                folder.mkdir(exist_ok=True)
                _write_durably(staging, (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())
                staging.replace(folder / STATE)
                _sync(folder)
            finally:
                _remove(staging)

    def check(self) -> None:
        """Raise :class:`Unavailable` when the folder cannot be looked into."""
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise Unavailable("the folder of the adapters cannot be read now")

    def _folder(self, ref: Ref) -> Path:
        return self.root / ref.name / str(ref.version)


def _write_durably(file: Path, data: Data) -> None:
    with file.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it, as far as that is possible."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder: not every system says so by the same error
        shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _read_errors(what: object) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise AdapterNotFound(f"no adapter version {what}" if isinstance(what, Ref) else f"no adapter named {what!r}") from None
    except OSError as error:
        log.error("adapter %s cannot be read: %s", what, error)  # a traceback says no more
        raise Unavailable(f"the files of adapter {what} cannot be read now; ask again in a moment") from None


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise StoreFull("the adapter store cannot take another byte; nothing was changed") from None
        raise
