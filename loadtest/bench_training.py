"""LoRA training beside transformers' Trainer: the same model, rows, epochs and learning rate, on one machine.

The Trainer keeps its defaults: float32, rows in random order, each batch padded to its longest by DataCollatorWithPadding
(without it, it cannot batch texts at all), a linear schedule. Its batch size alone is ours, not its 8: with 8 it would take
four times the steps, and what is compared is how a step is computed. Ours are the defaults of ``quickchange train``.
Validation is outside both times.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from loadtest.bench_model import Unprepared
from loadtest.figures import Figure
from loadtest.plan import Bench, Part

if TYPE_CHECKING:
    from training.data import TextData
    from training.text_model import Recipe

BAR, STRETCH = 1.5, 3.0
LOST = 0.5  # points of accuracy


def training(bench: Bench) -> Part:
    """Texts per second of a LoRA epoch over the Trainer's, and the accuracy that either reaches.

    Raises :class:`Unprepared` where there is no labelled data.
    """
    from training.text_model import Recipe
    from training.text_run import RunOptions, fit_text

    data = _labelled(bench.data, bench.plan.rows)
    ours, theirs = [], []
    for repeat in range(bench.repeats):
        recipe = Recipe(base_model=bench.base_model, epochs=1, select="accuracy", seed=repeat)
        bench.say(f"training: ours, repeat {repeat + 1} of {bench.repeats}")
        fitted = fit_text(data, recipe, RunOptions(quiet=True))
        ours.append((len(data.splits["train"]) / fitted.seconds_per_epoch, 100 * fitted.metrics["validation"]["accuracy"]))
        bench.say(f"training: the Trainer, repeat {repeat + 1} of {bench.repeats}")
        theirs.append(_trainer(data, recipe, bench.scratch / "trainer"))
    return Part(figures(ours, theirs))


def figures(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> list[Figure]:
    """The rows of the report, from each repeat's texts per second and accuracy in per cent."""
    faster = [a / b for (a, _), (b, _) in zip(ours, theirs, strict=True)]
    rates = {"ours texts/s": mean(rate for rate, _ in ours), "Trainer texts/s": mean(rate for rate, _ in theirs)}
    reached = {"ours %": mean(share for _, share in ours), "Trainer %": mean(share for _, share in theirs)}
    # One run's accuracy is as much its seed as its method: what is compared is the mean over all.
    lost = [reached["Trainer %"] - reached["ours %"]]
    return [
        Figure("LoRA training: texts/s / the Trainer's", "×", BAR, faster, rates, stretch=STRETCH, at_least=True),
        Figure("LoRA training: accuracy lost to the Trainer", "points", LOST, lost, reached),
    ]


def _labelled(folder: Path, rows: int) -> TextData:
    from training.data import DataError, Split, load_text_data

    try:
        data = load_text_data(str(folder))
    except DataError as error:
        raise Unprepared(f"training needs labelled data, and there is none by --data: {error}") from None
    train = data.splits["train"]
    return replace(data, splits={**data.splits, "train": Split(train.texts[:rows], train.labels[:rows])})


def _trainer(data: TextData, recipe: Recipe, scratch: Path) -> tuple[float, float]:
    """Texts per second and the accuracy on validation, in per cent, of the Trainer."""
    import torch
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    from training.text_model import build, tokenise

    torch.manual_seed(recipe.seed)
    model, tokenizer = build(recipe, data.labels, data.problem_type)

    def rows(split: str) -> list[dict[str, Any]]:
        part = data.splits[split]
        tokens = tokenise(tokenizer, part.texts, recipe.max_length)
        return [{"input_ids": ids, "label": label} for ids, label in zip(tokens, part.labels, strict=True)]

    arguments = TrainingArguments(
        str(scratch), per_device_train_batch_size=recipe.batch_size, num_train_epochs=recipe.epochs, seed=recipe.seed,
        learning_rate=recipe.learning_rate, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),  # it would warn that there is nothing to pin for
    )  # fmt: skip
    train = rows("train")
    collator = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model, arguments, data_collator=collator, train_dataset=train, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)  # what it would print is in the report
    started = time.perf_counter()
    trainer.train()
    took = time.perf_counter() - started
    predicted = trainer.predict(rows("validation")).predictions.argmax(-1)
    right = mean(bool(a == b) for a, b in zip(predicted.tolist(), data.splits["validation"].labels, strict=True))
    return recipe.epochs * len(train) / took, 100 * right
