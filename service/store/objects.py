"""What :class:`~service.store.files.ObjectStore` needs of a place that keeps files."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from obstore.exceptions import AlreadyExistsError, BaseError

from service.store.weights import Data

NUMBER = re.compile(r"\(os error (\d+)\)")


class Objects(Protocol):
    """Files by their path from the root, ``name/version/file``, in folders that exist by what is in them.

    A path that is not there is a :class:`FileNotFoundError`, except to ``remove``; whatever else goes wrong is another
    :class:`OSError`.
    """

    def names(self) -> list[str]:
        """The folders at the root, in any order; none of them is looked into."""

    def files(self, folder: str) -> list[str]:
        """The paths of everything below a folder at any depth, folders aside."""

    def get(self, path: str) -> Data:
        """A file's bytes; large ones lie in a block of memory of their own."""

    def create(self, path: str, data: Data) -> None:
        """Write a file that appears whole or not at all; raises :class:`FileExistsError` where somebody else's is."""

    def replace(self, path: str, data: Data) -> None:
        """As :meth:`create`, in place of what may be there; a reader gets the one or the other."""

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files, and the folders that have become empty; what is not there is as good as removed."""

    def settle(self, folder: str) -> None:
        """Return when everything written in a folder survives a power cut."""

    def check(self) -> None:
        """Raise :class:`OSError` when the place does not answer now."""


@contextmanager
def system_errors() -> Iterator[None]:
    """Raise obstore's errors as the system's; the number of one from a local disk is only in its text."""
    try:
        yield
    except AlreadyExistsError:
        raise FileExistsError from None
    except BaseError as error:
        number = NUMBER.search(str(error))
        raise OSError(int(number[1]) if number else errno.EIO, first_line(error)) from None


def first_line(error: Exception) -> str:
    """An obstore error without the answer's body and the dump of the request that it carries along, for a log."""
    return (str(error).splitlines() or [""])[0]
