"""A run on disk and what can befall it: checkpoints, a stop that was asked for, no space, no memory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from service.errors import QuickchangeError

CHECKPOINT = "checkpoint.safetensors"
FACTS = "facts"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # as torch says it


class RunFailed(QuickchangeError):
    """A run cannot start or go on; the text says why and what would help."""


class Interrupted(KeyboardInterrupt):
    """Somebody asked a run to stop; its checkpoint is written, and the text says how to go on."""


class Checkpoint:
    """The one checkpoint of the run in ``folder``: tensors, and facts as JSON, in one safetensors file.

    ``identity`` is what a run must share with the checkpoint that it resumes.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.file, self._identity = folder / CHECKPOINT, json.loads(json.dumps(identity))

    @property
    def run(self) -> str:
        """A short name of the identity."""
        return hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()[:8]

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint: whole, synced and renamed, so that whenever the process dies there is one to read."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        described = json.dumps({"identity": self._identity, **facts})
        try:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, {FACTS: described})
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(self.file)
        finally:
            partial.unlink(missing_ok=True)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts, or None where there is no checkpoint.

        Raises :class:`RunFailed` for another run's checkpoint and for one that cannot be read.
        """
        if not self.file.is_file():
            return None
        try:
            with safe_open(self.file, "pt") as opened:
                facts = json.loads(opened.metadata()[FACTS])
                tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118  # no dictionary
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise RunFailed(f"{self.file} is no checkpoint that can be read; --fresh starts the run over") from None
        there = facts.pop("identity")
        if there != self._identity:
            raise RunFailed(f"{self.file.parent} holds an unfinished run with {self._differing(there)}; --fresh starts it over")
        return tensors, facts

    def _differing(self, there: Mapping[str, Any]) -> str:
        keys = [key for key in self._identity if there.get(key) != self._identity[key]]
        return ", ".join(f"{key} {there.get(key)} (now {self._identity[key]})" for key in keys) or "other options"

    def remove(self) -> None:
        """Delete the checkpoint: the run is finished, or starts over."""
        self.file.unlink(missing_ok=True)


class Stop:
    """While it is entered, the first SIGINT or SIGTERM sets ``asked``; the second does what it always did.

    It ``listens`` only where there is something to save, and only in the main thread: no other may set handlers.
    """

    def __init__(self, listens: bool = True) -> None:
        self.asked = False
        self._listens = listens and threading.current_thread() is threading.main_thread()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if self._listens:
            self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._put_back()


@contextmanager
def said_clearly(smaller: str) -> Iterator[None]:
    """Raise :class:`RunFailed` in place of an error that means no space or no memory; ``smaller`` is what would need less."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise RunFailed(f"out of memory; try {smaller}") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        if _means_no_space(error):
            where = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
            raise RunFailed(f"no space left{where}; free some, or name another disk's folder") from None
        if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
            raise RunFailed(f"out of memory; try {smaller}") from None
        raise


def _means_no_space(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    return isinstance(error, SafetensorError) and any(f"os error {number}" in str(error) for number in NO_SPACE)
