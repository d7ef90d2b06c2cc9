"""Turn a fully fine-tuned checkpoint into a LoRA adapter with its head, by truncated SVD of what fine-tuning changed.

    quickchange extract CHECKPOINT --rank 32 --output runs/irony
    quickchange extract CHECKPOINT --ranks 4,8,16,32,64 --tolerance 0.02 --data DATA --output runs/irony

CHECKPOINT is a folder that ``save_pretrained`` wrote, of a classifier whose encoder is the base model's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from service.errors import QuickchangeError
from service.store.bundle import TEXT_CLASSIFICATION, BaseRef, Bundle, Manifest
from service.store.selector import check_name
from training.bundles import library_versions, weights_bytes, write_bundle
from training.cards import TEXT_LIMITS, card
from training.data import DataError, ReadOptions, TextData, load_text_data
from training.extraction import Extraction, Found, extract
from training.extraction_tables import layer_table, lost_table, rank_table
from training.text_measure import Measure
from training.train_text_adapter import described, source_name

RANK = 32
SERVED = 64  # the highest rank that a server takes unless told otherwise
SHOWN = (4, 8, 16, 32, 64)  # ranks in the table of layers where no several were asked for
PRECISIONS = ("fp16", "fp32")
console = Console(highlight=False)


def bundle_of(found: Found, name: str, checkpoint: str, data: TextData | None, facts: dict[str, Any]) -> Bundle:
    """The chosen adapter as a bundle; ``checkpoint`` is what its lineage calls the folder, ``facts`` go into the recipe."""
    extraction, chosen, source = found.extraction, found.chosen, found.extraction.checkpoint
    candidates = {
        each.name: {split: values[found.headline] for split, values in each.figures.items()} for each in found.candidates
    }
    lineage = {
        "name": checkpoint,
        "fingerprint": source.fingerprint,
        "rank": chosen.largest,
        "energy_kept": round(chosen.energy, 4),
        "difference": {part: round(share, 6) for part, share in extraction.differences.shares().items()},
        **({"metrics": found.full, found.headline: candidates} if found.full else {}),
    }
    base = BaseRef(name=chosen.config["base_model_name_or_path"], fingerprint=extraction.base.fingerprint)
    described: dict[str, Any] = {"problem_type": source.problem_type}
    manifest = Manifest(
        name=name,
        task=TEXT_CLASSIFICATION,
        labels=extraction.labels(data),
        base={"base_model": base},
        max_length=facts["max_length"],
        metrics=chosen.figures,
        recipe={"extracted_from": lineage, "r": chosen.config["r"], **facts, "libraries": library_versions()},
        **described,
    )
    return Bundle.assemble(chosen.config, weights_bytes(chosen.tensors), manifest, _describe(manifest))


def _describe(manifest: Manifest) -> str:
    """The bundle's model card, from what the manifest records."""
    lineage, data = manifest.recipe["extracted_from"], manifest.recipe.get("data")
    return card(
        manifest,
        summary=f"A LoRA adapter of rank {lineage['rank']} with its head, extracted from the fully fine-tuned checkpoint "
        f"{lineage['name']}; it keeps {lineage['energy_kept']:.1%} of the energy of the change in the linear layers.",
        data=f"Scored on {data['name']} ({data['digest']})." if data else "Not scored: no data was given.",
        note="Measured after rounding the weights as they are stored.",
        limits=TEXT_LIMITS,
    )


def main(
    checkpoint: Annotated[Path, typer.Argument(help="folder of a fully fine-tuned classifier, as save_pretrained writes it")],
    output: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    base_model: Annotated[str, typer.Option(help="what it was fine-tuned from: minilm, a folder, or a hub id")] = "minilm",
    rank: Annotated[int | None, typer.Option(min=1, help=f"LoRA rank of every layer; {RANK} if nothing else is asked")] = None,
    ranks: Annotated[str | None, typer.Option(help="ranks with commas; --data decides between them")] = None,
    energy: Annotated[float | None, typer.Option(help="share of the squared change to keep; ranks differ by layer")] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="what may be lost: 0.02 is 2 points of accuracy")] = 0.02,
    data: Annotated[str | None, typer.Option(help="labelled data to score on: anything that train reads")] = None,
    text_column: Annotated[str | None, typer.Option(help="column with the text")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the label")] = None,
    name: Annotated[str | None, typer.Option(help="adapter name; else the name of OUTPUT")] = None,
    max_length: Annotated[int, typer.Option(min=2, help="tokens; longer texts are cut")] = 128,
    precision: Annotated[str, typer.Option(help=f"{' or '.join(PRECISIONS)}, in which the weights are stored")] = "fp16",
) -> None:
    """Turn the fully fine-tuned classifier in CHECKPOINT into a LoRA adapter with its head, and write it to OUTPUT."""
    started = time.monotonic()
    try:
        wanted = _wanted(rank, ranks, energy, data)
        if precision not in PRECISIONS:
            raise DataError(f"--precision {precision}: accepted: {', '.join(PRECISIONS)}")
        called = check_name(name or output.resolve().name)
        loaded = load_text_data(data, ReadOptions(text_column, label_column)) if data else None
        extraction = Extraction(checkpoint, base_model, half=precision == "fp16")
        max_length = min(max_length, extraction.encoder.max_length)
        with Progress(console=console, transient=True) as progress:
            labels, problem_type = extraction.labels(loaded), extraction.checkpoint.problem_type
            measure = Measure(loaded, labels, problem_type, base_model, max_length) if loaded else None
            found = extract(extraction, wanted, tolerance, measure, progress)
        facts = {"max_length": max_length, "precision": precision, "tolerance": tolerance}
        about = {"data": described(loaded, source_name(Path(data)))} if loaded and data else {}
        took = {"duration_seconds": round(time.monotonic() - started, 1)}
        bundle = bundle_of(found, called, checkpoint.resolve().name, loaded, {**facts, **about, **took})
        write_bundle(bundle, output)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(layer_table(extraction, wanted if isinstance(wanted, list) and len(wanted) > 1 else SHOWN))
    console.print(lost_table(found), rank_table(found), sep="\n")
    if found.kept is False:
        console.print(f"[yellow]none is within {tolerance:g} of the checkpoint; {found.chosen.name} was written all the same[/]")
    if found.chosen.largest > SERVED:
        console.print(f"[yellow]a server takes it with --max-lora-rank {found.chosen.largest}[/]")
    console.print(f"[green]{output}[/]: {found.chosen.name}, {len(bundle.weights) / 1e6:.2f} MB, {bundle.manifest.digest}")


def _wanted(rank: int | None, ranks: str | None, energy: float | None, data: str | None) -> list[int] | float:
    """The ranks to cut, ascending, or the share of the energy; raises :class:`DataError` for options that contradict."""
    if sum(given is not None for given in (rank, ranks, energy)) > 1:
        raise DataError("--rank, --ranks and --energy are three ways to say one thing; give one of them")
    if energy is not None:
        if not 0 < energy <= 1:
            raise DataError(f"--energy {energy:g}: accepted: more than 0, at most 1")
        return energy
    if ranks is None:
        return [rank or RANK]
    parts = [part.strip() for part in ranks.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise DataError(f"--ranks {ranks}: accepted: whole numbers from 1 with commas, such as 4,8,16,32,64")
    if data is None and len(parts) > 1:
        raise DataError(f"--ranks {ranks}: --data decides which of them is enough; give it, or one --rank")
    return sorted({int(part) for part in parts})


if __name__ == "__main__":
    typer.run(main)
