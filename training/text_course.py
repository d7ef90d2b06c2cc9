"""The course of a run: epochs, the best of them, reports on the way, checkpoints, and an end before the last one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.helpers import disable_input_dtype_casting
from rich.progress import Progress
from torch import Tensor

from training.data import TextData
from training.metrics import figures
from training.run_state import Checkpoint, Interrupted, Stop
from training.terminal import console
from training.text_trainer import TextTrainer

VALIDATION = "validation"
LOWER_IS_BETTER = ("mae", "rmse")
BEST = "best/"
REPORT_EVERY = 10  # steps, to the trackers
Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; nothing in it changes the weights.

    ``folder`` takes the checkpoint and TensorBoard's files, and an unfinished run in it is resumed bit for bit; ``fresh``
    starts it over. ``checkpoint_every`` counts steps, 0 is after every epoch. ``after_epoch`` gets the epoch's number, from 1,
    and its validation figures, in every process, and may raise to stop the run; ``on_progress`` gets ``epoch``, ``step``,
    ``steps``, ``loss`` and ``texts_per_second`` after each step.
    """

    folder: Path | None = None
    report_to: tuple[str, ...] = ("tensorboard",)
    checkpoint_every: int = 0
    after_epoch: Callable[[int, Mapping[str, float]], None] | None = None
    on_progress: Callable[[Mapping[str, float]], None] | None = None
    quiet: bool = False
    fresh: bool = False


class Course:
    """How far a run has come: the steps taken, this epoch's loss so far, the curve, and the best epoch's tensors."""

    def __init__(self, trainer: TextTrainer, data: TextData, options: RunOptions, checkpoint: Checkpoint | None) -> None:
        self._trainer, self._data, self._options, self._checkpoint = trainer, data, options, checkpoint
        self._recipe, self._accelerator = trainer.recipe, trainer.accelerator
        self._stop = Stop(listens=checkpoint is not None)
        self.step, self.loss, self.seconds = 0, 0.0, 0.0
        self.curve: list[Metrics] = []
        self.best: dict[str, Tensor] = {}

    @property
    def best_epoch(self) -> int:
        """The epoch with the best figure so far, from 1; of equals the first, or of perfect ones that with the least loss.

        The first without an error may still be unsure of its answers, which the figure does not show.
        """
        name = self._recipe.select
        scores = [-point[name] if name in LOWER_IS_BETTER else point[name] for point in self.curve]
        perfect = 0.0 if name in LOWER_IS_BETTER else 1.0

        def rank(i: int) -> tuple[float, float]:
            score = -math.inf if math.isnan(scores[i]) else scores[i]
            return score, -self.curve[i]["loss"] if score == perfect else 0.0

        return 1 + max(range(len(scores)), key=rank)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or so many without a better one that patience is at its end."""
        done = len(self.curve)
        tired = bool(self._recipe.patience and done and done - self.best_epoch >= self._recipe.patience)
        return done == self._recipe.epochs or tired

    def resume(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._trainer.load(tensors, facts)
        self.step, self.loss, self.seconds, self.curve = (facts[key] for key in ("step", "loss", "seconds", "curve"))
        self.best = {name.removeprefix(BEST): tensor for name, tensor in tensors.items() if name.startswith(BEST)}
        self._say(f"going on after step {self.step} of {self._trainer.steps}")

    def run(self) -> None:
        """Train until it is over; raises :class:`Interrupted` after a signal, with the checkpoint written."""
        quiet = self._options.quiet or not self._accelerator.is_main_process
        with (
            self._stop,
            disable_input_dtype_casting(self._trainer.core),  # autocast casts what it must, once
            Progress(console=console, disable=quiet, transient=True) as progress,
        ):
            bar = progress.add_task("training", total=self._trainer.steps, completed=self.step)
            while not self.is_over:
                self._train(lambda text: progress.update(bar, completed=self.step, description=text))
                self._measure()

    def _train(self, show: Callable[[str], None]) -> None:
        epoch, per_epoch = len(self.curve) + 1, self._trainer.steps_per_epoch
        self._trainer.train()
        seen, took = 0, 0.0
        for rows in self._trainer.batches(epoch)[self.step - (epoch - 1) * per_epoch :]:
            began = time.perf_counter()
            loss = self._trainer.step(self.step + 1, rows)
            seconds = time.perf_counter() - began
            seen, took = seen + len(rows), took + seconds
            self.step, self.loss, self.seconds = self.step + 1, self.loss + loss, self.seconds + seconds
            self._report(epoch, loss, seen / took)
            show(f"epoch {epoch}/{self._recipe.epochs}, loss {loss:.3f}, {seen / took:.0f} texts/s")
            self._stop_if_asked()
            if self._options.checkpoint_every and self.step % self._options.checkpoint_every == 0:
                self.save()

    def _report(self, epoch: int, loss: float, speed: float) -> None:
        if self._options.on_progress and self._accelerator.is_main_process:
            progress = {"epoch": epoch, "step": self.step, "steps": self._trainer.steps, "loss": loss, "texts_per_second": speed}
            self._options.on_progress(progress)
        if self.step % REPORT_EVERY == 0:
            values = {"train/loss": loss, "train/learning_rate": self._trainer.learning_rate, "train/texts_per_second": speed}
            self._accelerator.log(values, step=self.step)

    def _measure(self) -> None:
        """Close the epoch: its figures, the best tensors if it is the best, a checkpoint, a line, the callback."""
        with self._trainer.averaged():
            logits, tensors = self._trainer.logits(VALIDATION, self._stop_alone), self._trainer.tensors()
        true = self._data.splits[VALIDATION].labels
        metrics = figures(self._data.problem_type, true, self._trainer.objective.in_units(logits), len(self._data.labels))
        epoch, loss = len(self.curve) + 1, self.loss / self._trainer.steps_per_epoch
        self.curve.append({"epoch": epoch, "loss": round(loss, 4), **metrics})
        if self.best_epoch == epoch:
            self.best = tensors
        self.loss = 0.0
        if self.is_over or not self._options.checkpoint_every:
            self.save()
        self._accelerator.log({f"{VALIDATION}/{name}": value for name, value in metrics.items()}, step=self.step)
        self._say(f"epoch {epoch}: loss {loss:.4f}, " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        if self._options.after_epoch:
            self._options.after_epoch(epoch, metrics)

    def save(self) -> None:
        """Write the checkpoint, where there is a folder for it; one process does."""
        if self._checkpoint and self._accelerator.is_main_process:
            tensors, facts = self._trainer.state()
            best = {f"{BEST}{name}": tensor for name, tensor in self.best.items()}
            course = {"step": self.step, "loss": self.loss, "seconds": self.seconds, "curve": self.curve}
            self._checkpoint.write(tensors | best, facts | course)

    def _stop_alone(self) -> None:
        if self._accelerator.num_processes == 1:  # several are not at the same batch here
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stop.asked:
            self._accelerator.set_trigger()
        if self._accelerator.check_trigger():  # in any process
            self.save()
            raise Interrupted(f"stopped after step {self.step} of {self._trainer.steps}; the same command goes on from there")

    def _say(self, line: str) -> None:
        if not self._options.quiet and self._accelerator.is_main_process:
            console.print(line)
