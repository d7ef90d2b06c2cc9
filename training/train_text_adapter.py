"""Train a LoRA adapter with its own head on any text classification data, and write it as a bundle.

    python -m training.train_text_adapter DATA --name sentiment --output runs/sentiment

DATA is a TweetEval folder, a CSV, TSV, JSONL or Parquet file, a folder with a file per split, or a hub name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.errors import QuickchangeError
from service.models.sources import PACKAGED_HUB_ID, PACKAGED_MINILM
from service.models.text_encoder import base_fingerprint
from service.store.bundle import TEXT_CLASSIFICATION, BaseRef, Bundle, Manifest
from training.bundles import library_versions, weights_bytes, write_bundle
from training.cards import TEXT_LIMITS, Quality, card, text_quality
from training.data import DataError, ReadOptions, TextData, load_text_data
from training.text_model import Recipe
from training.text_run import AS_USUAL, FittedText, RunOptions, fit_text

UNTESTED = " There was no test split: these are validation figures, and the epoch was chosen by them."
DEFAULTS = Recipe()
console = Console()


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


def save_full(fitted: FittedText, folder: Path) -> None:
    """Write what ``full`` has trained into ``folder``, with its tokenizer, as transformers loads it."""
    fitted.model.save_pretrained(folder)
    fitted.tokenizer.save_pretrained(folder)


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
    data: Annotated[str, typer.Argument(help="TweetEval folder, CSV, TSV, JSONL or Parquet file, folder of splits, or hub name")],
    name: Annotated[str, typer.Option(help="adapter name, as clients will select it")],
    output: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    base_model: Annotated[str, typer.Option(help="minilm, a folder, or a hub id")] = DEFAULTS.base_model,
    text_column: Annotated[str | None, typer.Option(help="column with the text")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the label")] = None,
    r: Annotated[int, typer.Option("--r", help="LoRA rank")] = DEFAULTS.r,
    lora_alpha: Annotated[int, typer.Option(help="LoRA scaling is lora_alpha / r")] = DEFAULTS.lora_alpha,
    lora_dropout: Annotated[float, typer.Option(help="dropout before each LoRA product")] = DEFAULTS.lora_dropout,
    target_modules: Annotated[str, typer.Option(help="all-linear, or module names with commas")] = DEFAULTS.target_modules,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0)] = DEFAULTS.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0)] = DEFAULTS.weight_decay,
    warmup: Annotated[float, typer.Option(min=0, max=1, help="share of the steps")] = DEFAULTS.warmup,
    label_smoothing: Annotated[float, typer.Option(min=0, max=1)] = DEFAULTS.label_smoothing,
    class_weights: Annotated[str, typer.Option(help="none, sqrt or balanced")] = DEFAULTS.class_weights,
    max_length: Annotated[int, typer.Option(min=2, help="tokens; longer texts are cut")] = DEFAULTS.max_length,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = DEFAULTS.precision,
    select: Annotated[str, typer.Option(help="accuracy, macro_f1 or macro_recall picks the best epoch")] = DEFAULTS.select,
    seed: Annotated[int, typer.Option(min=0)] = DEFAULTS.seed,
) -> None:
    """Train a LoRA adapter with its own head, keep its best epoch, and write it to OUTPUT as a bundle."""
    recipe = Recipe(
        base_model, r, lora_alpha, lora_dropout, target_modules, epochs, batch_size, learning_rate, weight_decay, warmup,
        label_smoothing, class_weights, max_length, precision, select, seed,
    )  # fmt: skip
    try:
        loaded = load_text_data(data, ReadOptions(text_column, label_column), seed)
        source = source_name(Path(data))
        sizes = ", ".join(f"{len(part)} {split}" for split, part in loaded.splits.items())
        console.print(f"{source}: {sizes}; labels {', '.join(loaded.labels)}")
        if loaded.bad:
            console.print(f"[yellow]{len(loaded.bad)} rows that cannot be used were left out[/]")
        bundle = train(loaded, recipe, name, source)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {error}")
        raise typer.Exit(1) from None
    write_bundle(bundle, output)
    console.print(f"[green]{output}[/]: {len(bundle.weights) / 1e6:.2f} MB, {bundle.manifest.digest}")
    for split, metrics in bundle.manifest.metrics.items():
        console.print(f"  {split}: " + ", ".join(f"{key} {value:.4f}" for key, value in metrics.items()))


if __name__ == "__main__":
    typer.run(main)
