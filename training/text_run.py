"""One training run over text data, from a recipe to the best epoch's tensors, figures and logits."""

from __future__ import annotations

import importlib.util
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from training.bundles import halve
from training.calibration import fit_temperature, fit_thresholds, fold
from training.data import DataError, TextData
from training.data_types import MULTI, REGRESSION, SINGLE
from training.metrics import figures
from training.run_state import Checkpoint, said_clearly
from training.text_course import VALIDATION, Course, Metrics, RunOptions
from training.text_model import LORA, Recipe
from training.text_trainer import TRAIN, TextTrainer

__all__ = ["AS_USUAL", "FittedText", "RunOptions", "fit_text"]

FP16_TOLERANCE = 0.002  # accuracy, or share of a regression's error, that float16 storage may cost
TENSORBOARD = "tensorboard"
TRACKERS = (TENSORBOARD, "wandb", "mlflow", "trackio")
AS_USUAL = RunOptions()
Calibrated = dict[str, float] | None


@dataclass(slots=True)
class FittedText:
    """A trained model and everything measured on it; the model holds ``tensors``, as the file stores them.

    ``logits`` are float32, (rows, labels), of validation and test in the data's order, after calibration, and for a
    regression in the data's units. ``seconds_per_epoch`` is that of the training steps alone.
    """

    model: Any
    tokenizer: Any
    recipe: Recipe
    tensors: dict[str, Tensor]
    curve: list[Metrics]
    metrics: dict[str, Metrics]
    logits: dict[str, Tensor]
    calibration: Calibrated
    thresholds: tuple[float, ...] | None
    trainable_parameters: int
    total_parameters: int
    seconds_per_epoch: float
    peak_memory_bytes: int


def fit_text(data: TextData, recipe: Recipe, options: RunOptions = AS_USUAL) -> FittedText:
    """Train on ``data``, keep the best epoch by validation, calibrate it, and round it as the file stores it.

    Raises :class:`DataError` for a choice that there is not, :class:`RunFailed` for another run's folder and where memory or
    disk do not suffice, and :class:`Interrupted` after a signal, with a checkpoint in ``options.folder``.
    """
    recipe = recipe.checked(data)
    smaller = f"a --batch-size below {recipe.batch_size} or a --max-length below {recipe.max_length}"
    _reset_peak_memory()
    with said_clearly(smaller):
        checkpoint = _checkpoint(data, recipe, options)
        accelerator = _accelerator(options)
        trainer = TextTrainer(accelerator, data, recipe)
        course = Course(trainer, data, options, checkpoint)
        if checkpoint and (found := _read(checkpoint, accelerator)):
            course.resume(*found)
        _start_trackers(accelerator, checkpoint.run if checkpoint else TENSORBOARD, recipe, course.step)
        try:
            course.run()
            fitted = _finished(trainer, course, data)
        finally:
            accelerator.end_training()
        if checkpoint and accelerator.is_main_process:
            checkpoint.remove()
        return fitted


def _checkpoint(data: TextData, recipe: Recipe, options: RunOptions) -> Checkpoint | None:
    if options.folder is None:
        return None
    checkpoint = Checkpoint(options.folder, {**recipe.resolved(), "data": data.digest})
    if options.fresh:
        checkpoint.remove()
    return checkpoint


def _read(checkpoint: Checkpoint, accelerator: Accelerator) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint's content in every process; one reads it, so that machines need not share a disk."""
    read = [checkpoint.read() if accelerator.is_main_process else None]
    broadcast_object_list(read)
    return read[0]


def _accelerator(options: RunOptions) -> Accelerator:
    """One accelerator a run; TensorBoard is among its trackers where there is a folder to write to."""
    for name in options.report_to:
        if name not in TRACKERS:
            raise DataError(f"--report-to {name}: accepted are {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise DataError(f"--report-to {name}: the package {name} is not installed; pip install {name}")
    trackers = [name for name in options.report_to if name != TENSORBOARD or options.folder]
    return Accelerator(mixed_precision="no", log_with=trackers or None, project_dir=options.folder)


def _start_trackers(accelerator: Accelerator, run: str, recipe: Recipe, step: int) -> None:
    # What a killed run wrote to TensorBoard after its last checkpoint is written again; its settings are there.
    accelerator.init_trackers(run, None if step else recipe.resolved(), {TENSORBOARD: {"purge_step": step}})


def _finished(trainer: TextTrainer, course: Course, data: TextData) -> FittedText:
    count, kind = len(data.labels), data.problem_type
    true = {split: part.labels for split, part in data.splits.items() if split != TRAIN}
    tensors, calibration = _calibrated(trainer, trainer.objective.folded(course.best), data)
    tensors = _stored(trainer, tensors, course.curve[course.best_epoch - 1], data)
    logits = {split: trainer.logits(split) for split in true}
    thresholds = fit_thresholds(logits[VALIDATION], true[VALIDATION]) if kind == MULTI else None
    trainable, total = trainer.count_parameters()
    return FittedText(
        model=trainer.core,
        tokenizer=trainer.tokenizer,
        recipe=trainer.recipe,
        tensors=tensors,
        curve=course.curve,
        metrics={split: figures(kind, true[split], logits[split], count, thresholds) for split in true},
        logits=logits,
        calibration=calibration,
        thresholds=thresholds,
        trainable_parameters=trainable,
        total_parameters=total,
        seconds_per_epoch=course.seconds / len(course.curve),
        peak_memory_bytes=_peak_memory(),
    )


def _calibrated(trainer: TextTrainer, tensors: dict[str, Tensor], data: TextData) -> tuple[dict[str, Tensor], Calibrated]:
    """The tensors with the temperature folded in that validation asks for, and what a manifest records of it."""
    if data.problem_type != SINGLE or not trainer.recipe.calibrate:
        return tensors, None
    trainer.restore(tensors)
    found = fit_temperature(trainer.logits(VALIDATION), data.splits[VALIDATION].labels)
    return fold(tensors, found.temperature), found.recorded()


def _stored(trainer: TextTrainer, tensors: dict[str, Tensor], before: Metrics, data: TextData) -> dict[str, Tensor]:
    """The tensors as the file will hold them, an adapter's in float16 if accuracy allows; the model gets them too."""
    if trainer.recipe.method == LORA:
        halved = halve(tensors)
        trainer.restore(halved)
        after = figures(data.problem_type, data.splits[VALIDATION].labels, trainer.logits(VALIDATION), len(data.labels))
        if _keeps(before, after, data.problem_type):
            return halved
    trainer.restore(tensors)
    return tensors


def _keeps(before: Metrics, after: Metrics, problem_type: str) -> bool:
    if problem_type == REGRESSION:
        return after["rmse"] <= before["rmse"] * (1 + FP16_TOLERANCE)  # not, where it is not a number
    return after["accuracy"] >= before["accuracy"] - FP16_TOLERANCE


def _reset_peak_memory() -> None:
    """Let the peak count from here, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def _peak_memory() -> int:
    """Bytes held at the peak: the accelerator's, or else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        found = [line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
