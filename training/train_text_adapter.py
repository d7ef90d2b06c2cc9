"""Train a LoRA adapter with its own head on any text classification data, and write it as a bundle.

    python -m training.train_text_adapter DATA --name sentiment --output runs/sentiment

DATA is a TweetEval folder, a CSV, TSV, JSONL or Parquet file, a folder with a file per split, or a hub name.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from service.models.base_weights import base_fingerprint
from service.models.sources import PACKAGED_HUB_ID, PACKAGED_MINILM
from service.store.bundle import TEXT_CLASSIFICATION, BaseRef, Bundle, Manifest
from training.bundles import library_versions, weights_bytes, write_bundle
from training.cards import TEXT_LIMITS, Quality, card, text_quality
from training.data import DataError, ReadOptions, TextData, load_text_data
from training.data_flags import Data, LabelColumn, Labels, LabelSeparator, ProblemType, SkipBad, TextColumn, read_options
from training.data_types import AUTO
from training.recipe_flags import BaseModel, ClassWeights, LoraDropout, MaxLength, Precision
from training.run_state import said_clearly
from training.terminal import console, one_line_errors, progress
from training.text_full import save_full
from training.text_model import FEWEST_EPOCHS, FEWEST_STEPS, FULL, LEARNING_RATES, Recipe, enough_epochs, process
from training.text_run import AS_USUAL, TENSORBOARD, TRACKERS, FittedText, RunOptions, fit_text

UNTESTED = " There was no test split: these are validation figures, and the epoch was chosen by them."
DEFAULTS = Recipe()
STOPPED = 130  # the exit code of a command that a signal ended


def train(data: TextData, recipe: Recipe, name: str, source: str, options: RunOptions = AS_USUAL) -> Bundle:
    """Train on ``data``, keep the best epoch by validation, and return the finished bundle."""
    return bundle_of(fit_text(data, recipe, options), data, name, source)


def bundle_of(fitted: FittedText, data: TextData, name: str, source: str) -> Bundle:
    """The bundle of what ``lora`` has trained."""
    base_model = fitted.recipe.base_model
    base_name = PACKAGED_HUB_ID if base_model in PACKAGED_MINILM else base_model
    facts: dict[str, Any] = {"problem_type": data.problem_type}
    if fitted.thresholds is not None:
        facts["thresholds"] = fitted.thresholds
    manifest = Manifest(
        name=name,
        task=TEXT_CLASSIFICATION,
        labels=data.labels,
        base={"base_model": BaseRef(name=base_name, fingerprint=base_fingerprint(base_model))},
        max_length=fitted.recipe.max_length,
        metrics=fitted.metrics,
        recipe={
            **fitted.recipe.resolved(),
            "data": described(data, source),
            "curve": fitted.curve,
            "calibration": fitted.calibration,
            "libraries": library_versions(),
            "duration_seconds": round(fitted.seconds_per_epoch * len(fitted.curve), 1),
        },
        **facts,
    )
    config = {**adapter_config(fitted.model), "base_model_name_or_path": base_name}
    quality = text_quality(data, fitted.logits, fitted.thresholds, fitted.curve)
    return Bundle.assemble(config, weights_bytes(fitted.tensors), manifest, describe(manifest, quality), quality.images)


def described(data: TextData, source: str) -> dict[str, object]:
    """What a manifest records of the data: its name, digest and sizes."""
    sizes = {split: len(part) for split, part in data.splits.items()}
    return {"name": source, "digest": data.digest, "skipped_rows": len(data.bad), **sizes}


def describe(manifest: Manifest, quality: Quality) -> str:
    """The bundle's model card, from what the manifest records and what was measured beside it."""
    recipe = manifest.recipe
    data = recipe["data"]
    sizes = ", ".join(f"{data[split]:,} {split} rows" for split in ("train", "validation", "test") if split in data)
    untested = "" if "test" in manifest.metrics else UNTESTED
    return card(
        manifest,
        summary=f"A rank-{recipe['r']} LoRA adapter with its own classification head, trained on {data['name']}.",
        data=f"{data['name']}, {sizes} ({data['digest']}).",
        note=f"Best epoch by {recipe['select']} on validation; measured after rounding the weights as they are stored.{untested}",
        limits=TEXT_LIMITS,
        quality=quality,
    )


def source_name(data: Path) -> str:
    """What cards and manifests call the data: its last two names, without where it lies on this machine."""
    return "/".join(data.parts[-2:])


def adapter_config(model: Any) -> dict[str, object]:
    """PEFT's ``adapter_config.json`` as a dictionary, ready for inference."""
    raw = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in raw.items()}


def main(
    data: Data,
    name: Annotated[str, typer.Option(help="adapter name, as clients will select it")],
    output: Annotated[Path | None, typer.Option(help="folder to write the bundle to")] = None,
    base_model: BaseModel = DEFAULTS.base_model,
    method: Annotated[str, typer.Option(help="lora, or full for the whole model")] = DEFAULTS.method,
    save_full: Annotated[Path | None, typer.Option(help="with --method full: folder for the model")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    problem_type: ProblemType = AUTO,
    label_separator: LabelSeparator = "|",
    labels: Labels = None,
    skip_bad: SkipBad = False,
    r: Annotated[int, typer.Option("--r", min=1, help="LoRA rank")] = DEFAULTS.r,
    lora_alpha: Annotated[int, typer.Option(help="LoRA scaling is lora_alpha / r")] = DEFAULTS.lora_alpha,
    lora_dropout: LoraDropout = DEFAULTS.lora_dropout,
    target_modules: Annotated[str, typer.Option(help="all-linear, or module names with commas")] = DEFAULTS.target_modules,
    epochs: Annotated[int | None, typer.Option(min=1, help="by default 3, and more for few rows")] = None,
    patience: Annotated[int, typer.Option(min=0, help="stop after so many epochs without a better one; 0: never")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of a step, over all processes")] = DEFAULTS.batch_size,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="by default 1e-3, and 5e-5 for --method full")] = None,
    weight_decay: Annotated[float, typer.Option(min=0)] = DEFAULTS.weight_decay,
    warmup: Annotated[float, typer.Option(min=0, max=1, help="share of the steps")] = DEFAULTS.warmup,
    average: Annotated[
        float, typer.Option(min=0, max=1, help="share of the steps, the last, whose weights are averaged at a held rate")
    ] = DEFAULTS.average,
    r_drop: Annotated[
        float, typer.Option(min=0, help="weight of the difference between two draws of dropout; each step costs twice as much")
    ] = DEFAULTS.r_drop,
    label_smoothing: Annotated[float, typer.Option(min=0, max=1)] = DEFAULTS.label_smoothing,
    class_weights: ClassWeights = DEFAULTS.class_weights,
    max_length: MaxLength = DEFAULTS.max_length,
    precision: Precision = DEFAULTS.precision,
    select: Annotated[str, typer.Option(help="figure that picks the best epoch, such as macro_f1")] = DEFAULTS.select,
    calibrate: Annotated[bool, typer.Option(help="fit a temperature on validation")] = DEFAULTS.calibrate,
    seed: Annotated[int, typer.Option(min=0)] = DEFAULTS.seed,
    run_dir: Annotated[Path | None, typer.Option(help="for checkpoint and TensorBoard; by default beside OUTPUT")] = None,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="start an unfinished run over, or go on with it")] = False,
    checkpoint_every: Annotated[int, typer.Option(min=0, help="steps; 0: every epoch")] = 0,
    report_to: Annotated[str, typer.Option(help=f"{', '.join(TRACKERS)}; several with commas")] = TENSORBOARD,
) -> None:
    """Train a LoRA adapter with its own head, keep its best epoch, and write it to OUTPUT as a bundle.

    A run that was stopped or killed goes on where its last checkpoint is when the same command is given again.
    """
    with one_line_errors(), one_voice(), goes_on_later():
        target = target_of(method, output, save_full)
        options = read_options(text_column, label_column, problem_type, label_separator, labels, skip_bad)
        loaded, source = read(data, options, seed)
        rows = len(loaded.splits["train"])
        recipe = Recipe(
            base_model=base_model, r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, target_modules=target_modules,
            epochs=epochs or enough_epochs(rows, batch_size), batch_size=batch_size,
            learning_rate=LEARNING_RATES.get(method, 0.0) if learning_rate is None else learning_rate,
            weight_decay=weight_decay, warmup=warmup, average=average, r_drop=r_drop, label_smoothing=label_smoothing,
            class_weights=class_weights, max_length=max_length, precision=precision, select=select, seed=seed, method=method,
            patience=patience, calibrate=calibrate,
        )  # fmt: skip
        warn_of_few_steps(recipe, rows)
        folder = run_dir or target.parent / ".state" / target.name
        trackers = tuple(tracker.strip() for tracker in report_to.split(","))
        fitted = fit_text(loaded, recipe, RunOptions(folder, trackers, checkpoint_every, fresh=fresh))
        if process().is_main_process:
            with said_clearly("a smaller model"):
                written = write(fitted, loaded, name, source, target)
            console.print(f"[green]{target}[/]: {written}")
            for split, metrics in fitted.metrics.items():
                console.print(f"  {split}: " + ", ".join(f"{key} {value:.4f}" for key, value in metrics.items()))


def target_of(method: str, output: Path | None, save_full: Path | None) -> Path:
    """The folder to write to; raises :class:`DataError` when it is not the one that the method needs."""
    if method == FULL and save_full:
        return save_full
    if method == FULL:
        raise DataError("--method full trains a whole model, no adapter: name a folder for it by --save-full")
    if save_full or not output:
        raise DataError("--method lora trains an adapter: name a folder for it by --output, without --save-full")
    return output


def read(data: str, options: ReadOptions, seed: int) -> tuple[TextData, str]:
    """The data with a line about it, and what cards call it."""
    loaded, source = load_text_data(data, options, seed), source_name(Path(data))
    sizes = ", ".join(f"{len(part)} {split}" for split, part in loaded.splits.items())
    console.print(f"{escape(source)}: {sizes}; {loaded.problem_type}: {escape(', '.join(loaded.labels))}")
    if loaded.bad:
        console.print(f"[yellow]{len(loaded.bad)} rows that cannot be used were left out[/]")
    return loaded, source


def warn_of_few_steps(recipe: Recipe, rows: int) -> None:
    """Say what the epochs come to, where the data are so few that it matters."""
    steps = math.ceil(rows / recipe.batch_size) * recipe.epochs
    if steps < FEWEST_STEPS:
        console.print(
            f"[yellow]only {steps} steps of the optimizer in {recipe.epochs} epochs: figures may stay near chance; "
            f"{FEWEST_STEPS} or more are usual (--epochs, a smaller --batch-size, more rows)[/]"
        )
    elif recipe.epochs > FEWEST_EPOCHS:
        console.print(f"{recipe.epochs} epochs, {steps} steps of the optimizer")


def write(fitted: FittedText, data: TextData, name: str, source: str, target: Path) -> str:
    """Write the adapter's bundle, or the whole model, and say in words what was written."""
    if fitted.recipe.method == FULL:
        save_full(fitted, target)
        return f"{fitted.total_parameters:,} parameters; quickchange extract makes an adapter of it"
    bundle = bundle_of(fitted, data, name, source)
    write_bundle(bundle, target)
    return f"{len(bundle.weights) / 1e6:.2f} MB, {bundle.manifest.digest}"


@contextmanager
def one_voice() -> Iterator[None]:
    """Only the first of several processes prints."""
    state = process()
    console.quiet = progress.quiet = not state.is_main_process
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in os.environ and state.num_processes == 1:
        console.print(
            "[yellow]one process: accelerate launch --cpu starts several only through MPI; "
            "without it: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N[/]"
        )
    try:
        yield
    finally:
        state.destroy_process_group()


@contextmanager
def goes_on_later() -> Iterator[None]:
    """End with one line and exit code 130 when somebody stops the run."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        line = str(stopped) or "stopped; the same command starts over, or goes on from a checkpoint if there is one"
        progress.print(f"[yellow]{line}[/]", soft_wrap=True)
        raise typer.Exit(STOPPED) from None


if __name__ == "__main__":
    typer.run(main)
