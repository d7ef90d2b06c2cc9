"""One run of a study, in a process of its own: its peak memory is its own, and where it dies the study goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from service.errors import QuickchangeError
from training.bundles import write_bundle
from training.data import DataError, TextData
from training.study_grid import Variant
from training.text_run import FittedText, RunOptions, fit_text
from training.train_text_adapter import bundle_of, save_full

RUN, RESULT, LOGITS = "run.json", "result.json", "predictions.safetensors"
ADAPTER, MODEL, TRAINING = "adapter", "model", "training"
WEIGHTS = {ADAPTER: "adapter_model.safetensors", MODEL: "model.safetensors"}
Watch = Callable[[Mapping[str, float]], None]


class RunFailed(Exception):
    """A run ended without a result; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """A variant with a seed, and the folder that its files are in."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, but for the data."""
        # A base model is known by its weights, which may lie elsewhere tomorrow.
        return {**asdict(self.variant.recipe), "base_model": self.variant.fingerprint, "seed": self.seed}

    @property
    def is_done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT).is_file()

    def claim(self, data: TextData) -> None:
        """Record what the folder is for; raises :class:`DataError` when it holds a run of another recipe or other data."""
        wanted = {**self.identity, "data": data.digest}
        found = json.loads((self.folder / RUN).read_text("utf-8")) if (self.folder / RUN).is_file() else wanted
        if different := sorted(key for key in wanted if found.get(key) != wanted[key]):
            key = different[0]
            raise DataError(
                f"{self.folder} holds a run with {key} {found.get(key)}, not {wanted[key]}: "
                "give the options of that study, or another --output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RUN, wanted)

    def result(self) -> dict[str, Any]:
        """The figures of a run that is done."""
        result: dict[str, Any] = json.loads((self.folder / RESULT).read_text("utf-8"))
        return result

    def logits(self) -> dict[str, Tensor]:
        """Logits, (rows, labels), on validation and test."""
        logits: dict[str, Tensor] = load_file(self.folder / LOGITS)
        return logits


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    fresh = file.with_name(f".{file.name}")
    fresh.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    fresh.replace(file)


def carry_out(run: Run, data: TextData, source: str, watch: Watch) -> None:
    """Train ``run``, or go on where it stopped, and leave its result in its folder; ``watch`` gets its progress.

    Raises :class:`RunFailed`. An interrupt lets the run save what it has.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(run, data, source, send))
    process.start()
    send.close()
    failure = ""
    try:
        while True:
            message = receive.recv()
            if isinstance(message, str):
                failure = message
            else:
                watch(message)
    except EOFError:
        process.join()
    except KeyboardInterrupt:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        process.join()
        raise
    finally:
        receive.close()
    if failure or process.exitcode:
        raise RunFailed(failure or f"its process was ended by signal {-(process.exitcode or 0)}, as where memory runs out")


def _alone(run: Run, data: TextData, source: str, send: Connection) -> None:
    os.setpgid(0, 0)  # a terminal's Ctrl-C comes through the study, once
    try:
        _train(run, data, source, send.send)
    except KeyboardInterrupt:
        pass
    except Exception as error:  # whatever a library raises ends this run alone
        text = " ".join(str(error).split()) or "no reason given"
        send.send(text if isinstance(error, (DataError, QuickchangeError)) else f"{type(error).__name__}: {text}")
    finally:
        send.close()


def _train(run: Run, data: TextData, source: str, watch: Watch) -> None:
    recipe = replace(run.variant.recipe, seed=run.seed)
    options = RunOptions(folder=run.folder / TRAINING, report_to=(), on_progress=watch, quiet=True)
    fitted = fit_text(data, recipe, options)
    save_file({split: logits.contiguous() for split, logits in fitted.logits.items()}, run.folder / LOGITS)
    weights = _write_weights(run, fitted, data, source)
    figures = {
        "variant": run.variant.name,
        "seed": run.seed,
        "trainable_parameters": fitted.trainable_parameters,
        "total_parameters": fitted.total_parameters,
        "seconds_per_epoch": fitted.seconds_per_epoch,
        "peak_memory_bytes": fitted.peak_memory_bytes,
        "file_bytes": weights.stat().st_size,
        "metrics": fitted.metrics,
        "curve": fitted.curve,
        "calibration": fitted.calibration,
        "thresholds": fitted.thresholds,
        "recipe": {**recipe.resolved(), "base_model": run.variant.base},
    }
    write_json(run.folder / RESULT, figures)
    shutil.rmtree(run.folder / TRAINING, ignore_errors=True)  # checkpoints of a run that is done


def _write_weights(run: Run, fitted: FittedText, data: TextData, source: str) -> Path:
    """Write the bundle or the full model into the run's folder, and return the file with its weights."""
    kind = MODEL if run.variant.is_full else ADAPTER
    shutil.rmtree(run.folder / kind, ignore_errors=True)
    if run.variant.is_full:
        save_full(fitted, run.folder / kind)
    else:
        write_bundle(bundle_of(fitted, data, run.variant.folder.lower(), source), run.folder / kind)
    return run.folder / kind / WEIGHTS[kind]
