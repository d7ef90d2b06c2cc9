"""Adapter versions as folders on a local disk: ``<root>/<name>/<version>/``."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.errors import AdapterNotFound, StoreFull
from service.store.bundle import Bundle, Manifest, parse_manifest, read_bundle
from service.store.layout import MANIFEST
from service.store.selector import NAME, VERSION, Ref

STATE = "registry.json"
INCOMING = ".incoming-"


class DirectoryStore:
    """Keeps bundles in folders that appear whole or not at all; a version, once there, is never written again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        for left_over in root.glob(f"*/{INCOMING}*"):
            shutil.rmtree(left_over, ignore_errors=True)

    def names(self) -> list[str]:
        """Adapters that have a folder."""
        return sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and NAME.fullmatch(entry.name))

    def versions(self, name: str) -> list[int]:
        """Complete versions of an adapter: a folder without its manifest does not count."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        numbers = [entry.name for entry in folder.iterdir() if VERSION.fullmatch(entry.name) and (entry / MANIFEST).is_file()]
        return sorted(map(int, numbers))

    def manifest(self, ref: Ref) -> Manifest:
        """A version's manifest; raises :class:`AdapterIncompatible` when it cannot be read."""
        return parse_manifest((self._folder(ref) / MANIFEST).read_bytes())

    def read(self, ref: Ref) -> Bundle:
        """A version, whole and checked against its manifest.

        Raises :class:`AdapterNotFound` when it is not there, :class:`AdapterIncompatible` when it is damaged.
        """
        if not (self._folder(ref) / MANIFEST).is_file():
            raise AdapterNotFound(f"no adapter version {ref}")
        return read_bundle(self._folder(ref))

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
                shutil.rmtree(staging, ignore_errors=True)

    def delete(self, ref: Ref) -> None:
        """Remove a version's files, its manifest first, so that an interrupted removal leaves no version."""
        folder = self._folder(ref)
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def state(self, name: str) -> dict[str, Any]:
        """What was last saved about an adapter beside its versions; empty when nothing was."""
        file = self.root / name / STATE
        state: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
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
                staging.unlink(missing_ok=True)

    def _folder(self, ref: Ref) -> Path:
        return self.root / ref.name / str(ref.version)


def _write_durably(file: Path, data: bytes) -> None:
    with file.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise StoreFull("the adapter store cannot take another byte; nothing was changed") from None
        raise
