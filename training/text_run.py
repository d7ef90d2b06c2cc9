"""One training run over text data, from a recipe to the best epoch's tensors, figures and logits."""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from training.bundles import halve
from training.data import TextData
from training.metrics import classification_metrics
from training.text_model import Recipe, build, fit, predict_logits, tokenise

FP16_TOLERANCE = 0.002  # accuracy that float16 storage may cost before the file stays in float32
LORA = "lora"
Metrics = dict[str, float]
console = Console()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; nothing in it changes the weights.

    ``folder`` takes checkpoints and TensorBoard's files, and an unfinished run in it is resumed; ``fresh`` starts it over.
    ``checkpoint_every`` counts steps, 0 is after every epoch. ``after_epoch`` gets the epoch's number, from 1, and its
    validation figures, and may raise to stop the run; ``on_progress`` gets ``epoch``, ``step``, ``steps``, ``loss`` and
    ``texts_per_second``.
    """

    folder: Path | None = None
    report_to: tuple[str, ...] = ("tensorboard",)
    checkpoint_every: int = 0
    after_epoch: Callable[[int, Mapping[str, float]], None] | None = None
    on_progress: Callable[[Mapping[str, float]], None] | None = None
    quiet: bool = False
    fresh: bool = False


AS_USUAL = RunOptions()


@dataclass(slots=True)
class FittedText:
    """A trained model and everything measured on it; the model holds ``tensors``, as the file stores them.

    ``logits`` are float32, (rows, labels), of validation and test in the data's order, after calibration.
    """

    model: Any
    tokenizer: Any
    recipe: Recipe
    tensors: dict[str, Tensor]
    curve: list[Metrics]
    metrics: dict[str, Metrics]
    logits: dict[str, Tensor]
    calibration: dict[str, float] | None
    thresholds: tuple[float, ...] | None
    trainable_parameters: int
    total_parameters: int
    seconds_per_epoch: float
    peak_memory_bytes: int


def fit_text(data: TextData, recipe: Recipe, options: RunOptions = AS_USUAL) -> FittedText:
    """Train on ``data`` and keep the best epoch by validation."""
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    model, tokenizer = build(recipe, data.labels, data.problem_type)
    rows = {split: tokenise(tokenizer, part.texts, recipe.max_length) for split, part in data.splits.items()}

    def logits(split: str) -> Tensor:
        return predict_logits(model, rows[split], tokenizer.pad_token_id)

    def measure(split: str) -> Metrics:
        predicted = logits(split).argmax(-1).tolist()
        return classification_metrics(data.splits[split].labels, predicted, len(data.labels))

    best = BestEpoch(model, recipe, options, lambda: measure("validation"))
    with Progress(console=console, disable=options.quiet) as progress:
        fit(
            model, rows["train"], data.splits["train"], recipe, tokenizer.pad_token_id, best.after_epoch, progress,
            options.on_progress,
        )  # fmt: skip
    tensors = round_and_restore(model, recipe.method, best, lambda: measure("validation"))
    measured = [split for split in data.splits if split != "train"]
    trainable, total = count_parameters(model)
    return FittedText(
        model=model,
        tokenizer=tokenizer,
        recipe=recipe,
        tensors=tensors,
        curve=best.curve,
        metrics={split: measure(split) for split in measured},
        logits={split: logits(split) for split in measured},
        calibration=None,
        thresholds=None,
        trainable_parameters=trainable,
        total_parameters=total,
        seconds_per_epoch=(time.monotonic() - started) / recipe.epochs,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


@dataclass
class BestEpoch:
    """The tensors of the epoch with the best ``select`` figure so far, and every epoch's figures."""

    model: Any
    recipe: Recipe
    options: RunOptions
    measure: Callable[[], Metrics]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    curve: list[Metrics] = field(default_factory=list)

    def after_epoch(self, epoch: int, loss: float) -> None:
        """Measure, print, and keep the tensors when they are the best yet."""
        metrics = self.measure()
        if not self.options.quiet:
            console.print(f"epoch {epoch}: loss {loss:.4f}, " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
        if not self.metrics or metrics[self.recipe.select] > self.metrics[self.recipe.select]:
            self.tensors, self.metrics = trained_tensors(self.model, self.recipe.method), metrics
        self.curve.append({"epoch": epoch, "loss": round(loss, 4), **metrics})
        if self.options.after_epoch:
            self.options.after_epoch(epoch, metrics)


def trained_tensors(model: Any, method: str) -> dict[str, Tensor]:
    """A copy of what training changes, by the names that a file gives it."""
    return copy.deepcopy(get_peft_model_state_dict(model) if method == LORA else dict(model.state_dict()))


def restore(model: Any, method: str, tensors: Mapping[str, Tensor]) -> None:
    """Put trained tensors back into the model."""
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    if method == LORA:
        set_peft_model_state_dict(model, floats)
    else:
        model.load_state_dict(floats)


def round_and_restore(model: Any, method: str, best: BestEpoch, measure: Callable[[], Metrics]) -> dict[str, Tensor]:
    """The best epoch's tensors as the file will hold them, in float16 if accuracy allows; the model gets them too."""
    halved = halve(best.tensors)
    restore(model, method, halved)
    if method == LORA and measure()["accuracy"] >= best.metrics["accuracy"] - FP16_TOLERANCE:
        return halved
    restore(model, method, best.tensors)
    return best.tensors


def count_parameters(model: Any) -> tuple[int, int]:
    """How many parameters are trained, and how many there are; the frozen original of a trained head is not counted."""
    named = [(name, p) for name, p in model.named_parameters() if ".original_module." not in name]
    return sum(p.numel() for _, p in named if p.requires_grad), sum(p.numel() for _, p in named)
