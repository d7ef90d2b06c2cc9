"""Make a new adapter of several that share a base model and labels: weighted, TIES, DARE or by magnitude.

    quickchange merge runs/a runs/b --weights 0.5,0.5 --output runs/both
    quickchange merge irony:1 irony:2 --method dare_ties_svd --density 0.3 --data DATA --output runs/both

An adapter is a bundle's folder, or NAME[:VERSION] of one stored in --adapters-dir. See "Merging models" in PEFT's guide
for the methods; those that end in ``_svd`` work on the changes of the weights, the others on the two factors apart.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from service.errors import QuickchangeError
from service.models.base_weights import BaseWeights, load_base
from service.models.sources import locate
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder
from service.store.bundle import TEXT_CLASSIFICATION, BaseRef, Bundle, Manifest
from service.store.selector import check_name
from service.tasks.standalone import CPU, MAX_RANK
from training.bundles import halve, library_versions, weights_bytes, write_bundle
from training.cards import TEXT_LIMITS, card
from training.checkpoint import OPTION, hub_name
from training.data import DataError, ReadOptions, TextData, load_text_data
from training.low_rank import cut, peft_config, peft_tensors, uniform
from training.merging import (
    EXACT,
    METHODS,
    Plan,
    Source,
    check_alike,
    check_plan,
    check_source,
    merge_heads,
    merge_lora,
    merge_thresholds,
    read_adapter,
    usual_weights,
)
from training.metrics import HEADLINE
from training.text_measure import Figures, Measure
from training.train_text_adapter import described, source_name

console = Console(highlight=False)


def merge(base: BaseWeights, base_model: str, sources: list[Source], plan: Plan, name: str) -> Bundle:
    """The merged adapter as a bundle in float16, with its lineage; it is not scored."""
    changes = merge_lora(base, locate(base_model, OPTION), sources, plan)
    largest = max(change.rank for change in changes.values())
    factors = cut(changes, uniform(changes, plan.rank or largest))
    head = merge_heads(base, sources, plan.weights)
    config = peft_config(hub_name(base_model), factors, saves_pooler=base.family.pools and head.dense is not None)
    first = sources[0].bundle.manifest
    facts: dict[str, Any] = {"problem_type": first.problem_type, "thresholds": merge_thresholds(sources, plan.weights)}
    lengths = [length for source in sources if (length := source.bundle.manifest.max_length)]
    lineage = {
        "adapters": [
            {"name": source.name, "digest": source.bundle.manifest.digest, "weight": weight}
            for source, weight in zip(sources, plan.weights, strict=True)
        ],
        "method": plan.method,
        "seed": plan.seed,
        **({"density": plan.density} if plan.prunes else {}),
    }
    manifest = Manifest(
        name=name,
        task=TEXT_CLASSIFICATION,
        labels=first.labels,
        base={"base_model": BaseRef(name=hub_name(base_model), fingerprint=base.fingerprint)},
        max_length=min(lengths) if lengths else None,
        recipe={"merged_from": lineage, "r": config["r"], "libraries": library_versions()},
        **facts,
    )
    return Bundle.assemble(config, weights_bytes(halve(peft_tensors(factors, head, base.family))), manifest)


def score(
    adapters: dict[str, TextAdapter], manifest: Manifest, data: TextData, encoder: TextEncoder, base_model: str
) -> dict[str, Figures]:
    """The figures of each adapter on every split of ``data`` but the training one, by the adapters' names."""
    length = min(manifest.max_length or encoder.max_length, encoder.max_length)
    measure = Measure(data, manifest.labels, manifest.problem_type, base_model, length, manifest.thresholds)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("scoring", total=len(measure) * len(adapters))
        measure.done = lambda rows: progress.advance(bar, rows)
        return {name: measure(encoder, adapter) for name, adapter in adapters.items()}


def finished(bundle: Bundle, figures: dict[str, Figures], name: str, data: dict[str, object] | None, seconds: float) -> Bundle:
    """The bundle with its figures, those of its sources in the lineage, and its card."""
    manifest = bundle.manifest
    lineage = dict(manifest.recipe["merged_from"])
    if figures:
        lineage["metrics"] = {source: values for source, values in figures.items() if source != name}
    recipe = {
        **manifest.recipe,
        "merged_from": lineage,
        **({"data": data} if data else {}),
        "duration_seconds": round(seconds, 1),
    }
    scored = manifest.model_copy(update={"metrics": figures.get(name, {}), "recipe": recipe})
    return Bundle.assemble(bundle.config, bundle.weights, scored, _describe(scored))


def _describe(manifest: Manifest) -> str:
    """The bundle's model card, from what the manifest records."""
    lineage, data = manifest.recipe["merged_from"], manifest.recipe.get("data")
    parts = ", ".join(f"{each['name']} (weight {each['weight']:g})" for each in lineage["adapters"])
    return card(
        manifest,
        summary=f"An adapter merged from {parts} by {lineage['method']}.",
        data=f"Scored on {data['name']} ({data['digest']})." if data else "Not scored: no data was given.",
        note="Measured after rounding the weights as they are stored.",
        limits=TEXT_LIMITS,
    )


def figures_table(figures: dict[str, Figures], problem_type: str) -> Table:
    """The headline figure of the sources and of the merge, a row an adapter and a column a split."""
    splits = list(next(iter(figures.values())))
    table = Table("adapter", *(f"{HEADLINE[problem_type]}, {split}" for split in splits))
    for name, values in figures.items():
        table.add_row(escape(name), *(f"{values[split][HEADLINE[problem_type]]:.4f}" for split in splits))
    return table


def main(
    adapters: Annotated[list[str], typer.Argument(help="bundles' folders, or NAME[:VERSION] in the adapters folder")],
    output: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    weights: Annotated[str | None, typer.Option(help="a number for each, with commas; else equal ones")] = None,
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = EXACT,
    density: Annotated[float, typer.Option(help="share of the values that TIES, DARE and magnitude_prune keep")] = 0.5,
    rank: Annotated[int | None, typer.Option(min=1, help="highest rank of the result; else what the method gives")] = None,
    seed: Annotated[int, typer.Option(min=0, help="what DARE draws by")] = 0,
    base_model: Annotated[str, typer.Option(help="base model of all of them: minilm, a folder, or a hub id")] = "minilm",
    adapters_dir: Annotated[Path, typer.Option(help="folder of the stored adapter versions")] = Path("adapters"),
    data: Annotated[str | None, typer.Option(help="labelled data to score the sources and the result on")] = None,
    text_column: Annotated[str | None, typer.Option(help="column with the text")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the label")] = None,
    name: Annotated[str | None, typer.Option(help="name of the new adapter; else the name of OUTPUT")] = None,
) -> None:
    """Merge ADAPTERS of one base model and the same labels into a new one, and write it to OUTPUT."""
    started = time.monotonic()
    try:
        called = check_name(name or output.resolve().name)
        loaded = load_text_data(data, ReadOptions(text_column, label_column)) if data else None
        base = load_base(base_model, OPTION)
        encoder = TextEncoder(base, CPU)
        classifier = TextClassifier(encoder, MAX_RANK)
        sources = [check_source(*read_adapter(each, adapters_dir), classifier, base_model) for each in adapters]
        check_alike(sources)
        plan = Plan(method, _weights(weights, method, len(sources)), density, rank, seed)
        check_plan(plan, sources)
        bundle = merge(base, base_model, sources, plan, called)
        figures: dict[str, Figures] = {}
        if loaded:
            merged = check_source(called, bundle, classifier, base_model)
            every = {f"{number} {source.name}": source.adapter for number, source in enumerate(sources, 1)}
            figures = score({**every, called: merged.adapter}, bundle.manifest, loaded, encoder, base_model)
        about = described(loaded, source_name(Path(data))) if loaded and data else None
        bundle = finished(bundle, figures, called, about, time.monotonic() - started)
        write_bundle(bundle, output)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    if figures:
        console.print(figures_table(figures, bundle.manifest.problem_type))
    megabytes = len(bundle.weights) / 1e6
    console.print(f"[green]{output}[/]: {method}, rank {bundle.config['r']}, {megabytes:.2f} MB, {bundle.manifest.digest}")


def _weights(given: str | None, method: str, count: int) -> tuple[float, ...]:
    if given is None:
        return usual_weights(method, count)
    try:
        numbers = tuple(float(part) for part in given.split(","))
    except ValueError:
        raise DataError(f"--weights {given}: accepted: a number for each adapter, with commas, such as 0.7,0.3") from None
    if not all(math.isfinite(number) for number in numbers):
        raise DataError(f"--weights {given}: accepted: finite numbers")
    return numbers


if __name__ == "__main__":
    typer.run(main)
