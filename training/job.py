"""One training in a process of its own, as the server begins them: ``python -m training.job FOLDER``.

FOLDER has ``job.json`` (the order) and the data. The bundle goes to ``FOLDER/bundle``, reports to ``progress.jsonl`` and
the one line on why it failed to ``error.json``. A training that was ended before goes on from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

REPORT_SECONDS = 0.5  # between reports of progress
WATCH_SECONDS = 0.2
BUNDLE = "bundle"
INTERRUPTED, FAILED = 75, 1  # exit codes
EXTRA = "pip install 'quickchange[train]' where the server is installed"


def main() -> int:
    """Train the job in the folder that is named; the exit code is 0 when its bundle is there."""
    folder = Path(sys.argv[1])
    give_way()
    if "--parent" in sys.argv:
        follow(int(sys.argv[sys.argv.index("--parent") + 1]))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one that was killed may still be ending
        try:
            if not (folder / BUNDLE).exists():
                train(folder)
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            traceback.print_exc()
            tell(folder, *explained(error, folder))
            return FAILED
    return 0


def give_way() -> None:
    """Run only when nothing else wants to; threads that are begun later do the same."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def follow(parent: int) -> None:
    """End with the process that began this one, however that ends: nobody would look after the training."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def train(folder: Path) -> None:
    """Train as ``job.json`` says, and write the bundle, which is there whole or not at all."""
    from training.bundles import write_bundle
    from training.data import ReadOptions, load_text_data
    from training.text_model import Recipe, enough_epochs
    from training.text_run import RunOptions, fit_text
    from training.train_text_adapter import bundle_of

    order = json.loads((folder / "job.json").read_bytes())
    recipe = Recipe(**{"base_model": order["base_model"], **_known(order["options"], Recipe)})
    data = load_text_data(str(folder / order["data"]), ReadOptions(**_known(order["options"], ReadOptions)), recipe.seed)
    if order["options"].get("epochs") is None:
        recipe = replace(recipe, epochs=enough_epochs(len(data.splits["train"]), recipe.batch_size))
    with Reports(folder / "progress.jsonl", recipe.epochs) as reports:
        options = RunOptions(
            folder=folder / "run", report_to=(), after_epoch=reports.after_epoch, on_progress=reports.on_progress, quiet=True
        )
        fitted = fit_text(data, recipe, options)
    staged = folder / f"{BUNDLE}.incoming"
    shutil.rmtree(staged, ignore_errors=True)
    write_bundle(bundle_of(fitted, data, order["name"], order["source"]), staged)
    staged.rename(folder / BUNDLE)


class Reports:
    """Writes how far a training of so many epochs is, as lines of JSON, to the end of ``file``."""

    def __init__(self, file: Path, epochs: int) -> None:
        self._out = file.open("a+b", buffering=0)
        self._epochs, self._metrics = epochs, dict[str, float]()
        self._began: tuple[float, float] | None = None  # when, and at which step
        self._due = 0.0

    def __enter__(self) -> Reports:
        if self._out.tell():
            self._out.write(b"\n")  # after a line that was cut short
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()

    def on_progress(self, at: Mapping[str, Any]) -> None:
        """Report where the training is, not more often than anybody wants to read it."""
        now = time.monotonic()
        began, first = self._began = self._began or (now, at["step"])
        if now < self._due and at["step"] < at["steps"]:
            return
        self._due = now + REPORT_SECONDS
        done = at["step"] - first
        left = (at["steps"] - at["step"]) * (now - began) / done if done else None
        self._write("progress", {**at, "epochs": self._epochs, "eta_seconds": left, "metrics": self._metrics})

    def after_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report an epoch's figures."""
        self._metrics = dict(metrics)
        self._write("metrics", {"epoch": epoch, "epochs": self._epochs, "metrics": self._metrics})

    def _write(self, event: str, content: Mapping[str, Any]) -> None:
        self._out.write(json.dumps({"event": event, **content}).encode() + b"\n")


def explained(error: Exception, folder: Path) -> tuple[str, str]:
    """A stable word for an error, and a line on it that names no folder of this machine."""
    from service.errors import InvalidInput, QuickchangeError

    if isinstance(error, ModuleNotFoundError):
        return "training_missing", f"training needs {error.name}, which this server does not have; {EXTRA}"
    # By their names, for the modules that have them may be what is missing.
    code = {"DataError": InvalidInput.code, "RunFailed": "training_failed"}.get(type(error).__name__)
    if code is None and isinstance(error, QuickchangeError):
        code = error.code
    if code is not None:
        return code, " ".join(str(error).replace(f"{folder}/", "").split())
    return "internal", f"the training failed in a way that nobody foresaw ({type(error).__name__}); its log is on the server"


def tell(folder: Path, code: str, detail: str) -> None:
    """Write ``error.json``, whole or not at all."""
    staged = folder / "error.json.incoming"
    staged.write_text(json.dumps({"code": code, "detail": detail}))
    staged.rename(folder / "error.json")


def _known(options: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Those options that are fields of a class; lists become tuples, as immutable classes have them."""
    names = {one.name for one in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if name in names}


if __name__ == "__main__":
    sys.exit(main())
