"""A training as a process of its own: ``python -m training.job FOLDER``, which gives way to everything else on the machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from service.errors import QuickchangeError
from service.jobs.folder import BUNDLE, ERROR, LOG
from service.jobs.job import Fault

OURS = "QUICKCHANGE_"  # variables that are the server's alone: some hold a password
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
INSTALL = "pip install 'quickchange[train]' where the server is installed"


class NoTraining(QuickchangeError):
    """The server is installed without what trains."""

    code = "training_missing"


class Training:
    """The process that trains the job in ``folder`` with so many threads; it ends with this one, however that ends.

    Raises :class:`NoTraining` where there is nothing to train with, and :class:`OSError`.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        if find_spec("training") is None:
            raise NoTraining(f"this server is installed without training; {INSTALL}")
        self.folder = folder
        (folder / ERROR).unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        command = [sys.executable, "-m", "training.job", str(folder), "--parent", str(os.getpid())]
        with (folder / LOG).open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                command,
                env={
                    **kept,
                    **dict.fromkeys(THREADS, str(threads)),
                    "TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true",
                    "HF_DATASETS_CACHE": str(folder / "cache"),  # so that no copy of the data outlives the job
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # A group of its own, so that it is ended whole, and no session of its own: Linux shares the processors out
                # between sessions first, and its priority would count only against itself (sched(7), autogroups).
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process, which leads a group of its own."""
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Tell it to save a checkpoint and end."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever it has started, at once."""
        with suppress(ProcessLookupError, PermissionError):  # the latter of a group that has just ended, on some systems
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def fault_in(folder: Path) -> Fault | None:
    """Why the training of the job in ``folder`` cannot go on, if it has said so."""
    try:
        found = json.loads((folder / ERROR).read_bytes())
        return Fault(code=str(found["code"]), detail=str(found["detail"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Fault(code="internal", detail="the training failed, and why cannot be read")


def is_trained(folder: Path) -> bool:
    """Whether the bundle of the job in ``folder`` is there, whole."""
    return (folder / BUNDLE).is_dir()


def death(code: int) -> str:
    """What an exit code without a word of its own means."""
    if code == -signal.SIGKILL:
        return "the process was killed, as happens when memory runs out"
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with code {code} and said nothing"
