"""Adapter versions as files, ``name/version/file``, on a local disk or in a bucket."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.errors import AdapterIncompatible, AdapterNotFound, StoreFull, Unavailable, VersionConflict
from service.store.bundle import Bundle, Manifest, parse_manifest
from service.store.disk import INCOMING
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from service.store.objects import Objects
from service.store.selector import NAME, VERSION, Ref, check_name
from service.store.weights import Data

log = logging.getLogger(__name__)
STATE = "registry.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


class ObjectStore:
    """Keeps bundles as files of which the manifest comes first to go and last to come: without it there is no version.

    A version, once there, is never written again. Whoever changes an adapter must be the only one who does.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def names(self) -> list[str]:
        """Adapters that have a folder, sorted; none of the folders is looked into."""
        with _reading():
            return sorted(name for name in self.objects.names() if NAME.fullmatch(name))

    def versions(self, name: str) -> list[int]:
        """Complete versions of an adapter: a folder without its manifest does not count.

        Raises :class:`AdapterNotFound` when nothing is kept of it, and :class:`Unavailable` when the store does not answer now.
        """
        with _reading(name):
            return sorted(_whole(self.objects.files(check_name(name))))

    def manifest(self, ref: Ref) -> Manifest:
        """A version's manifest, read and parsed anew.

        Raises :class:`AdapterNotFound` when it is not there, :class:`AdapterIncompatible` when it is damaged, and
        :class:`Unavailable` when the store does not give it now.
        """
        with _reading(ref):
            return parse_manifest(bytes(self.objects.get(_path(ref, MANIFEST))))

    def read(self, ref: Ref) -> Bundle:
        """A version, whole and checked against its manifest; raises as :meth:`manifest` does."""
        with _reading(ref):
            manifest = bytes(self.objects.get(_path(ref, MANIFEST)))
            try:
                return self._bundle(ref, manifest)
            except AdapterIncompatible:
                self.objects.get(_path(ref, MANIFEST))  # not there any more: the version is not damaged but just being deleted
                raise

    def publish(self, ref: Ref, bundle: Bundle) -> None:
        """Write a new version durably, in place of what an interrupted attempt has left.

        Raises :class:`StoreFull` when the disk does not take it, :class:`VersionConflict` when somebody else writes the same
        version, and :class:`Unavailable` when the store does not answer.
        """
        with _changing(ref):
            self._sweep(ref.name, ref.version)
            try:
                self._write(ref, bundle)
            except FileExistsError:
                raise  # what is there is not ours
            except Exception:
                with suppress(OSError):
                    self._remove(self._of(ref))
                raise

    def delete(self, ref: Ref) -> None:
        """Remove a version's files, its manifest first, so that an interrupted removal leaves no version.

        Raises :class:`Unavailable` when the store does not answer; asking again removes the rest.
        """
        with _changing(ref):
            self._remove(self._of(ref))

    def look(self, name: str) -> tuple[list[int], bool]:
        """Complete versions of an adapter, and whether interrupted changes have left anything beside them."""
        with _reading(name):
            paths = self._files(check_name(name))
        whole = _whole(paths)
        return sorted(whole), any(_is_left_over(path, whole) for path in paths)

    def sweep(self, name: str) -> None:
        """Remove what interrupted changes of an adapter have left; nothing of a complete version."""
        with _changing(name):
            self._sweep(name)

    def state(self, name: str) -> dict[str, Any]:
        """What was last saved about an adapter beside its versions; empty when nothing was.

        Raises :class:`AdapterIncompatible` when it is damaged, :class:`Unavailable` when the store does not give it now.
        """
        data: Data = b"{}"
        with _reading(name), suppress(FileNotFoundError):
            data = self.objects.get(f"{check_name(name)}/{STATE}")
        try:
            state: dict[str, Any] = json.loads(bytes(data))
            dict(state.get("aliases", {})), frozenset(state.get("deleted", ()))
        except (ValueError, TypeError, AttributeError):
            raise AdapterIncompatible([f"{STATE} of adapter {name!r} is damaged"]) from None
        return state

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Replace what is known of an adapter beside its versions, in one atomic and durable step; raises as :meth:`publish`."""
        with _changing(name):
            self.objects.replace(f"{check_name(name)}/{STATE}", (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())
            self.objects.settle(name)

    def check(self) -> None:
        """Raise :class:`Unavailable` when the store does not answer now."""
        with _reading():
            self.objects.check()

    def _bundle(self, ref: Ref, manifest: bytes) -> Bundle:
        described = parse_manifest(manifest).files
        files: dict[str, Data] = {}
        shown = [name for name in IMAGES if name in described]
        for name in (CONFIG, WEIGHTS, CARD, *shown):
            with suppress(FileNotFoundError):
                data = self.objects.get(_path(ref, name))
                if data or name != CARD:  # an empty card is none
                    files[name] = data
        needed = (CONFIG, WEIGHTS, *(name for name in (CARD, *shown) if name in described))
        if missing := [name for name in needed if name not in files]:
            raise AdapterIncompatible([f"no {name} in the bundle" for name in missing])
        try:
            card = bytes(files.get(CARD, b"")).decode()
        except UnicodeDecodeError:
            raise AdapterIncompatible([f"{CARD} is not UTF-8"]) from None
        return Bundle.parse(bytes(files[CONFIG]), files[WEIGHTS], manifest, card, {name: bytes(files[name]) for name in shown})

    def _write(self, ref: Ref, bundle: Bundle) -> None:
        for name, data in bundle.contents.items():
            if name == MANIFEST:
                self.objects.settle(_path(ref))  # after a power cut, too, the manifest vouches for the others
            self.objects.create(_path(ref, name), data)
        self.objects.settle(_path(ref))

    def _sweep(self, name: str, unwanted: int | None = None) -> None:
        paths = self._files(name)
        whole = _whole(paths) - {unwanted}
        self._remove([path for path in paths if _is_left_over(path, whole)])

    def _remove(self, paths: Sequence[str]) -> None:
        manifests = [path for path in paths if path.endswith(f"/{MANIFEST}")]
        for some in (manifests, [path for path in paths if path not in manifests]):
            if some:
                self.objects.remove(some)

    def _files(self, name: str) -> list[str]:
        try:
            return self.objects.files(check_name(name))
        except FileNotFoundError:
            return []

    def _of(self, ref: Ref) -> list[str]:
        """What is in a version's place, be it a folder or a link planted there."""
        return [path for path in self._files(ref.name) if f"{path}/".startswith(f"{_path(ref)}/")]


def _path(ref: Ref, *file: str) -> str:
    return "/".join((check_name(ref.name), str(ref.version), *file))


def _whole(paths: Sequence[str]) -> set[int]:
    """The numbers of the versions among an adapter's files that have a manifest."""
    found = (path.partition("/")[2].removesuffix(f"/{MANIFEST}") for path in paths if path.endswith(f"/{MANIFEST}"))
    return {int(number) for number in found if VERSION.fullmatch(number)}


def _is_left_over(path: str, whole: set[int]) -> bool:
    _, *parts = path.split("/")
    return any(part.startswith(INCOMING) for part in parts) or (
        VERSION.fullmatch(parts[0]) is not None and int(parts[0]) not in whole
    )


@contextmanager
def _reading(what: Ref | str | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and what is not None:
            missing = f"no adapter version {what}" if isinstance(what, Ref) else f"no adapter named {what!r}"
            raise AdapterNotFound(missing) from None
        if error.errno == errno.ELOOP and isinstance(what, Ref):
            link = Path(error.filename).name
            raise AdapterIncompatible([f"{link} of adapter version {what} is a symbolic link, which is not followed"]) from None
        raise _unavailable(what, "read", error) from None


@contextmanager
def _changing(what: Ref | str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise VersionConflict(f"adapter version {what} is being published by somebody else; publish it again") from None
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull("the adapter store cannot take another byte; nothing was changed") from None
        raise _unavailable(what, "changed", error) from None


def _unavailable(what: Ref | str | None, done: str, error: OSError) -> Unavailable:
    files = "the adapter store" if what is None else f"the files of adapter {what}"
    log.error("%s cannot be %s: %s", files, done, error)  # a traceback says no more
    return Unavailable(f"{files} cannot be {done} now; ask again in a moment")
