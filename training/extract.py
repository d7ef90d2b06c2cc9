"""Turn a fully fine-tuned checkpoint into a LoRA adapter with its head, by truncated SVD of what fine-tuning changed.

    quickchange extract CHECKPOINT --rank 32 --output runs/irony
    quickchange extract CHECKPOINT --ranks 4,8,16,32,64 --tolerance 0.02 --data DATA --output runs/irony

CHECKPOINT is a folder that ``save_pretrained`` wrote, of a classifier whose encoder is the base model's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from service.errors import QuickchangeError
from service.store.bundle import TEXT_CLASSIFICATION, BaseRef, Bundle, Manifest
from service.store.selector import check_name
from training.bundles import library_versions, weights_bytes, write_bundle
from training.cards import TEXT_LIMITS, card
from training.data import DataError, ReadOptions, TextData, load_text_data
from training.extraction import CHOOSES, Candidate, Extraction, Figures, Measure, not_carried, smallest, unmeasured
from training.low_rank import energy_kept, uniform
from training.metrics import HEADLINE
from training.train_text_adapter import described, source_name

RANK = 32
SERVED = 64  # the highest rank that a server takes unless told otherwise
SHOWN = (4, 8, 16, 32, 64)  # ranks in the table of layers where none were asked for
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that one run has found: the figures of the checkpoint, of it without what LoRA cannot carry, of each rank."""

    extraction: Extraction
    full: Figures
    without: dict[str, Figures]
    candidates: list[Candidate]
    chosen: Candidate
    kept: bool


def extract(
    extraction: Extraction,
    wanted: Sequence[int] | float,
    tolerance: float,
    data: TextData | None,
    base_model: str,
    max_length: int,
) -> Found:
    """Cut adapters of these ranks, from the smallest up, or one for this share of the energy; score them, and choose one.

    Without ``data`` nothing is scored, and the last one is chosen. Raises :class:`DataError` as :class:`Measure` does.
    """
    lost = not_carried(extraction)
    kinds = {**{name: [name] for name in lost}, "all of these": lost} if data and lost else {}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("decomposing", total=None)
        measure: Any = unmeasured
        if data:
            measure = Measure(data, extraction.checkpoint, base_model, max_length, lambda rows: progress.advance(bar, rows))
            runs = 1 + len(kinds) + (len(wanted) if isinstance(wanted, Sequence) else 1)
            progress.update(bar, description="scoring", total=runs * len(measure))
        full = extraction.full(measure)
        without = {name: extraction.without(names, measure) for name, names in kinds.items()}
        if isinstance(wanted, Sequence):
            candidates = [extraction.at_rank(rank, measure) for rank in wanted]
        else:
            candidates = [extraction.at_energy(wanted, measure)]
    enough = smallest(candidates, full, extraction.checkpoint.problem_type, tolerance) if data else None
    return Found(extraction, full, without, candidates, enough or candidates[-1], enough is not None or not data)


def bundle_of(found: Found, name: str, checkpoint: str, data: dict[str, object] | None, facts: dict[str, Any]) -> Bundle:
    """The chosen adapter as a bundle; ``checkpoint`` is what its lineage calls the folder, ``facts`` go into the recipe."""
    extraction, chosen, source = found.extraction, found.chosen, found.extraction.checkpoint
    headline = HEADLINE[source.problem_type]
    scored = {each.name: {split: values[headline] for split, values in each.figures.items()} for each in found.candidates}
    lineage = {
        "name": checkpoint,
        "fingerprint": source.fingerprint,
        "rank": chosen.largest,
        "energy_kept": round(chosen.energy, 4),
        "shares_of_difference": {part: round(share, 6) for part, share in extraction.differences.shares().items()},
        **({"metrics": found.full, "candidates": scored} if found.full else {}),
    }
    base_name = chosen.config["base_model_name_or_path"]
    manifest = Manifest.model_validate(
        {
            "name": name,
            "task": TEXT_CLASSIFICATION,
            "labels": source.labels,
            "problem_type": source.problem_type,
            "base": {"base_model": BaseRef(name=base_name, fingerprint=extraction.base.fingerprint)},
            "max_length": facts["max_length"],
            "metrics": chosen.figures,
            "recipe": {
                "extracted_from": lineage,
                "r": chosen.config["r"],
                **facts,
                **({"data": data} if data else {}),
                "libraries": library_versions(),
            },
        }
    )
    return Bundle.assemble(chosen.config, weights_bytes(chosen.tensors), manifest, _describe(manifest))


def _describe(manifest: Manifest) -> str:
    """The bundle's model card, from what the manifest records."""
    lineage, data = manifest.recipe["extracted_from"], manifest.recipe.get("data")
    return card(
        manifest,
        summary=f"A LoRA adapter of rank {lineage['rank']} with its head, extracted from the fully fine-tuned checkpoint "
        f"{lineage['name']} ({lineage['fingerprint']}): {lineage['energy_kept']:.1%} of the energy of its linear layers' change.",
        data=f"Scored on {data['name']} ({data['digest']})." if data else "Not scored: no data was given.",
        note="Measured after rounding the weights as they are stored.",
        limits=TEXT_LIMITS,
    )


def layer_table(extraction: Extraction, ranks: Sequence[int]) -> Table:
    """The share of the squared change that each rank keeps, a row a layer and one for all."""
    table = Table("layer", "change", *(f"rank {rank}" for rank in ranks), title="energy kept")
    changes = extraction.changes
    total = sum(float(change.energies.sum()) for change in changes.values()) or 1.0
    for module, change in changes.items():
        kept = (f"{energy_kept({module: change}, uniform({module: change}, rank)):.1%}" for rank in ranks)
        table.add_row(module, f"{float(change.energies.sum()) / total:.1%}", *kept)
    table.add_section()
    table.add_row("all", "100.0%", *(f"{energy_kept(changes, uniform(changes, rank)):.1%}" for rank in ranks))
    return table


def lost_table(found: Found) -> Table:
    """What LoRA carries and what it cannot: the share of the squared difference, and the figure without it."""
    headline = HEADLINE[found.extraction.checkpoint.problem_type]
    table = Table("part of the encoder", "share of the squared difference", f"{headline} without it", "lost")
    shares = found.extraction.differences.shares()
    for name in (*shares, "all of these"):
        share = shares.get(name, 1 - shares["linear layers"])
        table.add_row(name, f"{share:.2%}", *_against(found.full, found.without.get(name, {}), headline))
    return table


def rank_table(found: Found) -> Table:
    """The checkpoint and every candidate: energy, size and figures by split, with what is lost on validation."""
    headline, splits = HEADLINE[found.extraction.checkpoint.problem_type], list(found.full)
    table = Table(
        "", "energy", "highest rank", "MB", *(f"{headline}, {split}" for split in splits), "lost", "of the checkpoint's"
    )
    table.add_row("full checkpoint", "", "", "", *(f"{found.full[split][headline]:.4f}" for split in splits), "", "")
    for each in found.candidates:
        marked = f"[bold]{each.name}[/]" if each is found.chosen else each.name
        values = [f"{each.figures[split][headline]:.4f}" for split in splits]
        _, lost = _against(found.full, each.figures, headline)
        share = f"{each.figures[CHOOSES][headline] / found.full[CHOOSES][headline]:.1%}" if splits and lost else ""
        table.add_row(marked, f"{each.energy:.1%}", str(each.largest), f"{each.nbytes / 1e6:.2f}", *values, lost, share)
    return table


def _against(full: Figures, figures: Figures, headline: str) -> tuple[str, str]:
    if not figures:
        return "", ""
    found = figures[CHOOSES][headline]
    return f"{found:.4f}", f"{full[CHOOSES][headline] - found:+.4f}"


def main(
    checkpoint: Annotated[Path, typer.Argument(help="folder of a fully fine-tuned classifier, as save_pretrained writes it")],
    output: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    base_model: Annotated[
        str, typer.Option(help="base model that it was fine-tuned from: minilm, a folder, or a hub id")
    ] = "minilm",
    rank: Annotated[int | None, typer.Option(min=1, help=f"LoRA rank of every layer; {RANK} if nothing else is asked")] = None,
    ranks: Annotated[str | None, typer.Option(help="ranks with commas; --data decides between them")] = None,
    energy: Annotated[float | None, typer.Option(help="share of the squared change to keep; ranks differ by layer")] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="what may be lost: 0.02 is 2 points of accuracy")] = 0.02,
    data: Annotated[str | None, typer.Option(help="labelled data to score on: anything that train reads")] = None,
    text_column: Annotated[str | None, typer.Option(help="column with the text")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the label")] = None,
    name: Annotated[str | None, typer.Option(help="adapter name; else the folder's of OUTPUT")] = None,
    max_length: Annotated[int, typer.Option(min=2, help="tokens; longer texts are cut")] = 128,
    precision: Annotated[str, typer.Option(help="fp16 or fp32, in which the weights are stored")] = "fp16",
) -> None:
    """Turn the fully fine-tuned classifier in CHECKPOINT into a LoRA adapter with its head, and write it to OUTPUT."""
    started = time.monotonic()
    try:
        wanted = _wanted(rank, ranks, energy, data)
        if precision not in ("fp16", "fp32"):
            raise DataError(f"--precision {precision}: accepted: fp16, fp32")
        called = check_name(name or output.resolve().name)
        loaded = load_text_data(data, ReadOptions(text_column, label_column)) if data else None
        extraction = Extraction(checkpoint, base_model, half=precision == "fp16")
        max_length = min(max_length, extraction.encoder.max_length)
        console.print(layer_table(extraction, wanted if isinstance(wanted, list) and len(wanted) > 1 else SHOWN))
        found = extract(extraction, wanted, tolerance, loaded, base_model, max_length)
        about = described(loaded, source_name(Path(data))) if loaded and data else None
        facts = {"max_length": max_length, "precision": precision, "duration_seconds": round(time.monotonic() - started, 1)}
        bundle = bundle_of(found, called, checkpoint.resolve().name, about, {**facts, "tolerance": tolerance})
        write_bundle(bundle, output)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(lost_table(found))
    console.print(rank_table(found))
    if not found.kept:
        console.print(f"[yellow]none is within {tolerance:g} of the checkpoint; {found.chosen.name} was written all the same[/]")
    if found.chosen.largest > SERVED:
        console.print(f"[yellow]a server takes it with --max-lora-rank {found.chosen.largest}[/]")
    console.print(f"[green]{output}[/]: {found.chosen.name}, {len(bundle.weights) / 1e6:.2f} MB, {bundle.manifest.digest}")


def _wanted(rank: int | None, ranks: str | None, energy: float | None, data: str | None) -> list[int] | float:
    """The ranks to cut, ascending, or the share of the energy; raises :class:`DataError` for options that contradict."""
    if sum(given is not None for given in (rank, ranks, energy)) > 1:
        raise DataError("--rank, --ranks and --energy say the same in three ways; give one of them")
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
        raise DataError("--ranks: --data decides which of them is enough; give it, or one --rank")
    return sorted({int(part) for part in parts})


if __name__ == "__main__":
    typer.run(main)
