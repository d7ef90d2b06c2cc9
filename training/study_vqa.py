"""Compare frozen towers for visual question answering: the same head on each pair, the same data and seeds, one report.

    quickchange study-vqa DATA --towers tf_efficientnet_lite0+minilm --towers clip:FOLDER+clip:FOLDER --output runs/study-vqa

Each run has a folder of its own in OUTPUT, and one that is there is not run again; embeddings are computed once.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from service.errors import QuickchangeError
from service.tasks.images import decode
from training.data import DataError
from training.study_run import write_json
from training.study_vqa_report import Outcome, report_of
from training.terminal import show
from training.vqa_data import MAX_ANSWERS, MIN_COVERAGE, VqaData, load_vqa_data
from training.vqa_features import IMAGE_BATCH, MAX_PIXELS, embed
from training.vqa_flags import (
    CACHE,
    Cache,
    Data,
    Grouped,
    ImageScale,
    MaxAnswers,
    Members,
    MemberSize,
    MinCoverage,
    SkipBad,
    WordNet,
)  # fmt: skip
from training.vqa_measure import NO_WORDNET, similarity_of
from training.vqa_model import Recipe
from training.vqa_run import BASELINES, Towers, run

RESULT = "result.json"
DEFAULT_TOWERS = "tf_efficientnet_lite0+minilm"
DEFAULTS = Recipe()
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """An image encoder and a sentence encoder, as they were named."""

    image: str
    sentence: str

    @classmethod
    def parse(cls, given: str) -> Pair:
        """From ``IMAGE+SENTENCE``; raises :class:`DataError` for anything else."""
        parts = given.split("+")
        if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - a pair
            raise DataError(f"--towers {given}: expected an image encoder, a plus sign and a sentence encoder: {DEFAULT_TOWERS}")
        return cls(*parts)


def carry_out(
    pair: Pair, seed: int, data: VqaData, recipe: Recipe, output: Path, cache: Path, progress: Progress, *, skip_bad: bool
) -> Outcome:
    """One pair's answers with one seed, from its folder in ``output`` if it is done; what decides them is recorded there.

    Raises :class:`DataError` when the folder holds a run of another recipe, other data or other weights.
    """
    towers = Towers.load(pair.image, pair.sentence)
    name = f"{towers.images.name}+{Path(towers.sentences.name).name}"
    recipe = replace(recipe, image_encoder=towers.images.name, sentence_encoder=towers.sentences.name, seed=seed)
    read, features = embed(data, towers.images, towers.sentences, cache, progress, skip_bad=skip_bad)
    identity = {**recipe.resolved(), "towers": [towers.images.fingerprint, towers.sentences.fingerprint], "data": read.digest}
    file = output / re.sub(r"[^\w.+-]", "-", name) / f"seed-{seed}" / RESULT
    if file.is_file():
        result = json.loads(file.read_text("utf-8"))
        if different := sorted(key for key in identity if result["identity"].get(key) != identity[key]):
            raise DataError(f"{file.parent} holds a run with another {different[0]}: give its options, or another --output")
    else:
        began = time.monotonic()
        done = run(read, features, towers, recipe, progress)
        result = {
            "identity": identity, "curve": done.curve, "seconds": round(time.monotonic() - began, 1),
            "bytes": sum(tensor.nbytes for tensor in done.tensors.values()), "image_ms": image_ms(read, towers),
            "predicted": done.predicted, "guessed": {sees: done.guessed[sees] for sees in BASELINES},
        }  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, result)
    return Outcome(name, seed, read, result)


def image_ms(data: VqaData, towers: Towers) -> float:
    """Milliseconds that the image encoder takes for an image of a full batch, without its decoding; the best of three."""
    paths = list(dict.fromkeys(example.image for example in data.splits["train"]))[:IMAGE_BATCH]
    batch = torch.stack([towers.images.preprocess(decode(path.read_bytes(), MAX_PIXELS)) for path in paths])
    times = []
    for _ in range(3):
        began = time.perf_counter()
        towers.images.embed(batch)
        times.append(time.perf_counter() - began)
    return round(1000 * min(times) / len(paths), 2)


def main(
    data: Data,
    output: Annotated[Path, typer.Option(help="folder of the runs and the report")],
    towers: Annotated[list[str] | None, typer.Option(help="IMAGE+SENTENCE encoder; repeat for more")] = None,
    seeds: Annotated[str, typer.Option(help="seeds of the heads, with commas")] = "0",
    cache: Cache = CACHE,
    members: Members = DEFAULTS.members,
    member_size: MemberSize = DEFAULTS.member_size,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    image_scale: ImageScale = DEFAULTS.image_scale,
    split_seed: Annotated[int, typer.Option(min=0, help="of the held-out tenth")] = 0,
    grouped: Grouped = False,
    skip_bad: SkipBad = False,
    min_coverage: MinCoverage = MIN_COVERAGE,
    max_answers: MaxAnswers = MAX_ANSWERS,
    wordnet: WordNet = None,
) -> None:
    """Train the same head on every pair of towers, and write report.md, report.html and report.json into OUTPUT."""
    recipe = replace(
        DEFAULTS, members=members, member_size=member_size, epochs=epochs, batch_size=batch_size, image_scale=image_scale,
        refit=False,
    )  # fmt: skip
    try:
        pairs = [Pair.parse(given) for given in dict.fromkeys(towers or [DEFAULT_TOWERS])]
        alike = similarity_of(wordnet)
        loaded = load_vqa_data(
            data, split_seed, grouped=grouped, skip_bad=skip_bad, min_coverage=min_coverage, max_answers=max_answers
        )
        outcomes = study(pairs, _seeds(seeds), loaded, recipe, output, cache, skip_bad=skip_bad)
        with console.status("measuring, and drawing the plots …"):
            report, table = report_of(outcomes, data.name, alike)
            report.write(output)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("[yellow]stopped before all runs were done; the same command goes on[/]")
        raise typer.Exit(130) from None
    if alike is None:
        console.print(NO_WORDNET, soft_wrap=True)
    show(table)
    console.print(f"[green]{output / 'report.html'}[/]: {len(pairs)} pairs of towers, {len(outcomes)} runs", soft_wrap=True)


def study(
    pairs: Sequence[Pair], seeds: Sequence[int], data: VqaData, recipe: Recipe, output: Path, cache: Path, *, skip_bad: bool
) -> list[Outcome]:
    """Every pair with every seed, what is done from its folder."""
    outcomes: list[Outcome] = []
    with Progress(console=console) as progress:
        whole = progress.add_task("runs", total=len(pairs) * len(seeds))
        for pair in pairs:
            for seed in seeds:
                outcomes.append(carry_out(pair, seed, data, recipe, output, cache, progress, skip_bad=skip_bad))
                progress.advance(whole)
    return outcomes


def _seeds(given: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", given):
        raise DataError(f"--seeds {given}: expected whole numbers with commas between them, such as 0,1,2")
    return list(dict.fromkeys(map(int, given.split(","))))


if __name__ == "__main__":
    typer.run(main)
