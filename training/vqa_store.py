"""Embeddings on disk, by the hash of what was embedded: two files that only ever grow, read through a memory map."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from training.data import DataError

VALUES, KEYS = "embeddings.bin", "keys.txt"  # rows of float32; the hash of each row's content, one a line
KEY, FLOAT = 64, 4


class EmbeddingStore:
    """One encoder's embeddings in a folder.

    A row counts once its key is written, and keys are written after their rows: what a killed run leaves unfinished is
    written over by the next, and everything before it is kept. Several processes may add at once.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._read = 0  # lines of the keys that were read
        self.rows: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for name in (VALUES, KEYS):
            (folder / name).touch()
        with self._locked():
            self._refresh()

    def add(self, keys: Sequence[str], embeddings: Tensor) -> None:
        """Append rows, (n, size), and their keys; raises :class:`DataError` when there is no space for them."""
        data = embeddings.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        with self._locked():
            start = self._refresh()
            try:
                _write(self._folder / VALUES, start * self._size * FLOAT, data)
                _write(self._folder / KEYS, start * (KEY + 1), "".join(f"{key}\n" for key in keys).encode())
            except OSError as error:
                raise DataError(f"{self._folder}: {error.strerror}; {len(data):,} bytes of embeddings cannot be kept") from None
            self._refresh()

    def table(self) -> Tensor:
        """Every row, (rows, size), mapped into memory: nothing is read before it is used."""
        count = max(self.rows.values(), default=-1) + 1
        if not count:
            return torch.empty(0, self._size)
        mapped = torch.from_file(str(self._folder / VALUES), shared=False, size=count * self._size, dtype=torch.float32)
        return mapped.view(count, self._size)

    def _refresh(self) -> int:
        """Read the keys that were added since, by whatever process; how many rows there are."""
        whole = min(
            (self._folder / KEYS).stat().st_size // (KEY + 1), (self._folder / VALUES).stat().st_size // (self._size * FLOAT)
        )
        with (self._folder / KEYS).open("rb") as file:
            file.seek(self._read * (KEY + 1))
            lines = file.read((whole - self._read) * (KEY + 1)).decode("ascii", "replace").splitlines()
        self.rows.update((key, row) for row, key in enumerate(lines, self._read))
        self._read = whole
        return whole

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / KEYS).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(file: Path, place: int, data: bytes) -> None:
    """Write ``data`` at ``place``, drop what a killed run has left behind it, and wait until it is on the disk."""
    with file.open("r+b") as target:
        target.seek(place)
        target.write(data)
        target.truncate()
        target.flush()
        os.fsync(target.fileno())
