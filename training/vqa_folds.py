"""Cross-validation of heads: every question is answered by heads that were fitted without it, so a small data set tells more."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from rich.progress import Progress
from torch import Tensor

from service.models.vqa_head import VqaHead
from training.data import DataError
from training.vqa_model import Recipe
from training.vqa_run import CPU, TRAIN, Run, fit, logits

VALIDATION = "validation"


def cross_validated(done: Run, recipe: Recipe, folds: int, progress: Progress, *, grouped: bool) -> dict[str, float]:
    """Accuracy over all questions, its standard error, and their number.

    The first fold are the held-out questions, which ``done`` has answered; the others share out the training questions by
    the recipe's seed, equal questions about one image together if ``grouped``. Every fit is the recipe's own.
    Raises :class:`DataError` where a fold would have no questions.
    """
    parts = [done.features.rows[VALIDATION], *_parts(done.features.rows[TRAIN], folds - 1, recipe.seed, grouped=grouped)]
    if empty := [number for number, part in enumerate(parts, 1) if not len(part)]:
        distinct = " distinct" if grouped else ""
        raise DataError(f"--folds {folds}: fold {empty[0]} would have none of the{distinct} questions; expected fewer folds")
    right = [_right(done, done.tensors, parts[0])]
    for number, held in enumerate(parts[1:], 1):
        others = torch.cat(parts[:number] + parts[number + 1 :])
        rows = {TRAIN: others[others[:, 2] >= 0], VALIDATION: held}
        tensors, _ = fit(replace(done.features, rows=rows), done.named, recipe, progress, done.prior, f"fold {number + 1}")
        right.append(_right(done, tensors, held))
    whole = torch.cat(right).double()
    accuracy = float(whole.mean())
    error = math.sqrt(accuracy * (1 - accuracy) / len(whole))
    return {"accuracy": round(accuracy, 4), "standard_error": round(error, 4), "questions": len(whole)}


def _parts(rows: Tensor, count: int, seed: int, *, grouped: bool) -> list[Tensor]:
    """The rows in so many parts of like size, by chance."""
    group = torch.arange(len(rows))
    if grouped:
        group = torch.unique(rows[:, :2], dim=0, return_inverse=True)[1]
    place = torch.randperm(int(group.max()) + 1, generator=torch.Generator().manual_seed(seed))[group] % count
    return [rows[place == number] for number in range(count)]


def _right(done: Run, tensors: dict[str, Tensor], rows: Tensor) -> Tensor:
    return logits(VqaHead.of(tensors).to(CPU), done.features, rows).argmax(-1) == rows[:, 2]
