"""Files in a folder of a local disk, durable once written, with no way out of the folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.store import LocalStore

from service.store.objects import system_errors
from service.store.weights import Data, read_block

INCOMING = ".incoming-"  # begins the name of a file that is still being written


class Disk:
    """The files below ``root``, which is made where it is missing.

    obstore's ``LocalStore`` writes them. It never syncs, follows symbolic links wherever they lead, and reads into memory of
    its own, so the rest is done here. ``fsync`` is the system's, or what watches it. Raises :class:`OSError` when ``root``
    cannot be a folder.
    """

    def __init__(self, root: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self.root, self._fsync = root, fsync
        self._make(root)
        self._objects = LocalStore(root)

    def names(self) -> list[str]:
        with os.scandir(self.root) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def files(self, folder: str) -> list[str]:
        with os.scandir(self._folder(folder)) as entries:
            below = [(f"{folder}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]
        found = []
        for path, is_folder in below:
            with suppress(FileNotFoundError):  # removed meanwhile
                found += self.files(path) if is_folder else [path]
        return found

    def get(self, path: str) -> Data:
        try:
            return read_block(self._place(path), _open_no_link)
        except IsADirectoryError:
            raise FileNotFoundError(path) from None

    def create(self, path: str, data: Data) -> None:
        self._put(path, data, replace=False)

    def replace(self, path: str, data: Data) -> None:
        self._put(path, data, replace=True)

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                self._place(path).unlink()
        for folder in dict.fromkeys(_parent(path) for path in paths):
            with suppress(FileNotFoundError):
                self._prune(self._folder(folder))

    def settle(self, folder: str) -> None:
        path = self._folder(folder)
        self._sync(path)
        while path != self.root:
            path = path.parent
            self._sync(path)

    def check(self) -> None:
        with os.scandir(self.root) as entries:
            next(entries, None)

    def _put(self, path: str, data: Data, *, replace: bool) -> None:
        """Write beside, sync, then rename: a name that a power cut leaves behind always has all of its bytes."""
        self._folder(_parent(path), make=True)
        staged = f"{_parent(path)}/{INCOMING}{path.rpartition('/')[2]}"
        try:
            with system_errors():
                obstore.put(self._objects, staged, data, use_multipart=False)
                self._sync(self._place(staged))
                obstore.rename(self._objects, staged, path, overwrite=replace)
        except OSError:
            with suppress(OSError):
                self.remove([staged])
            raise

    def _place(self, path: str) -> Path:
        return self._folder(_parent(path)) / path.rpartition("/")[2]

    def _folder(self, folder: str, *, make: bool = False) -> Path:
        """Where a folder lies; raises :class:`OSError` when a symbolic link is on the way to it."""
        path = self.root
        for part in folder.split("/"):
            path /= part
            if make:
                with suppress(FileExistsError):
                    path.mkdir()
            if stat.S_ISLNK(path.lstat().st_mode):
                raise OSError(errno.ELOOP, "a symbolic link, which is not followed", str(path))
        return path

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            self._sync(folder.parent)

    def _prune(self, folder: Path) -> None:
        with suppress(OSError):  # not empty
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent
        self._sync(folder)

    def _sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._fsync(descriptor)
        finally:
            os.close(descriptor)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe has no writer to wait for
