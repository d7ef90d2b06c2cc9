"""Files in a bucket of Amazon S3, or of any store that speaks its protocol."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import obstore
from obstore.store import S3Store

from service.memory import block
from service.store.objects import first_line, system_errors
from service.store.weights import Data

LAST = "~"  # sorts after every adapter name
PAGE = 1000  # keys that S3 lists at a time


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a store: to connect, for a whole answer, and until nothing is tried again.

    A request to a dead store fails after ``request`` plus ``retrying`` at most; 10 s carry 100 MB at 10 MB/s.
    """

    connect: float = 2.0
    request: float = 10.0
    retrying: float = 10.0
    retries: int = 2


class Bucket:
    """The files below a prefix of a bucket; the address and the credentials come from ``AWS_*`` variables.

    Nothing is asked of the store before the first call.
    """

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None, patience: Patience | None = None) -> None:
        patience = patience or Patience()
        self._objects = S3Store(
            bucket,
            prefix=prefix or None,
            config={"endpoint": endpoint} if endpoint else None,
            client_options={
                "allow_http": (endpoint or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=patience.connect),
                "timeout": timedelta(seconds=patience.request),
            },
            retry_config={
                "max_retries": patience.retries,
                "retry_timeout": timedelta(seconds=patience.retrying),
                "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
            },
        )

    def names(self) -> list[str]:
        with _s3_errors():
            return list(obstore.list_with_delimiter(self._objects)["common_prefixes"])

    def files(self, folder: str) -> list[str]:
        with _s3_errors():
            found = [meta["path"] for page in obstore.list(self._objects, folder, chunk_size=PAGE) for meta in page]
        if not found:
            raise FileNotFoundError(folder)
        return found

    def get(self, path: str) -> Data:
        with _s3_errors():
            data = obstore.get(self._objects, path).bytes()
        if not len(data):
            return b""
        own = block(len(data))
        own[:] = memoryview(data)
        return own

    def create(self, path: str, data: Data) -> None:
        with _s3_errors():
            try:
                obstore.put(self._objects, path, data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                # An answer that was lost or a 500 is followed by a second try, which finds what the first has written.
                if self.get(path) != data:
                    raise

    def replace(self, path: str, data: Data) -> None:
        with _s3_errors():
            obstore.put(self._objects, path, data)

    def remove(self, paths: Sequence[str]) -> None:
        with _s3_errors():
            obstore.delete(self._objects, paths)

    def settle(self, folder: str) -> None:
        """Nothing is left to do: what S3 has answered for is durable."""

    def check(self) -> None:
        with _s3_errors():
            obstore.list(self._objects, offset=LAST).collect()


@contextmanager
def _s3_errors() -> Iterator[None]:
    """As :func:`system_errors`; a 404 may be about the bucket, or a proxy's: only one code says that the file is not there."""
    try:
        with system_errors():
            yield
    except FileNotFoundError as error:
        if "<Code>NoSuchKey</Code>" in str(error):
            raise
        raise OSError(errno.EIO, first_line(error)) from None
