"""Train a visual question answering head on frozen embeddings, and write it as a bundle.

    quickchange train-vqa ../shared/data/daquar --name vqa --output runs/vqa

DATA is DAQUAR's or easy-vqa's folder, `easy-vqa` where that package is installed, a folder with VQA v2's JSON files and images,
or a CSV with image paths.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from service.errors import QuickchangeError
from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.models.vqa_head import TASK_TYPE, VqaHead
from service.store.bundle import VISUAL_QUESTION_ANSWERING, BaseRef, Bundle, Manifest
from service.tasks.vqa import towers
from training.bundles import library_versions, weights_bytes, write_bundle
from training.cards import VQA_LIMITS, card
from training.data import DataError
from training.vqa_data import MAX_ANSWERS, MIN_COVERAGE, VqaData, load_vqa_data
from training.vqa_features import embed
from training.vqa_flags import (
    CACHE,
    Cache,
    Data,
    Folds,
    Grouped,
    ImageScale,
    MaxAnswers,
    Members,
    MemberSize,
    MinCoverage,
    SkipBad,
    WordNet,
)  # fmt: skip
from training.vqa_folds import cross_validated
from training.vqa_measure import NO_WORDNET, Similarity, similarity_of
from training.vqa_model import Recipe
from training.vqa_run import Towers, everything, fit, run

REFITTED = """The weights here were then trained once more by the same recipe on all questions, the held-out ones among them, so \
the figures are those of a twin that had seen a tenth less, and cannot be measured again on these weights. """
PRIOR_NOTE = (
    """ What the image encoder's own ImageNet classes say of each answer is added, as much as the question lets through."""
)
FOLDS_NOTE = """Cross-validation has the share of all questions that are answered rightly by heads that were fitted by the same \
recipe without the question's fold, of which the first is the validation split. """
WUPS_NOTE = """WUPS is that of DAQUAR's authors: sets of answers, Wu and Palmer's similarity in WordNet, a tenth of it where it \
is below 0.9, or 0.0. """
DEFAULTS = Recipe()
console = Console(highlight=False)


def train(
    data: VqaData,
    recipe: Recipe,
    name: str,
    source: str,
    cache: Path,
    alike: Similarity | None = None,
    *,
    folds: int = 1,
    grouped: bool = False,
    skip_bad: bool = False,
) -> Bundle:
    """Embed once, train, and return the finished bundle.

    WUPS is measured if there is ``alike`` to do it by, and accuracy over every question if there are ``folds`` to do it in.
    """
    started = time.monotonic()
    loaded = Towers.load(recipe.image_encoder, recipe.sentence_encoder)
    with Progress(console=console) as progress:
        read, features = embed(data, loaded.images, loaded.sentences, cache, progress, skip_bad=skip_bad)
        done = run(read, features, loaded, recipe, progress)
        metrics = done.metrics(alike)
        if folds > 1:
            metrics["cross-validation"] = cross_validated(done, recipe, folds, progress, grouped=grouped)
        tensors = fit(everything(done.features), done.named, recipe, progress, done.prior)[0] if recipe.refit else done.tensors
    config = adapter_config(done.data, loaded, recipe)
    VqaHead.parse(config, tensors, done.data.answers, *towers(loaded.images, loaded.sentences))  # what a server would say of it
    manifest = Manifest(
        name=name,
        task=VISUAL_QUESTION_ANSWERING,
        labels=done.data.answers,
        base={
            "image_encoder": BaseRef(name=loaded.images.name, fingerprint=loaded.images.fingerprint),
            "sentence_encoder": BaseRef(name=loaded.sentences.name, fingerprint=loaded.sentences.fingerprint),
        },
        metrics=metrics,
        recipe={
            **recipe.resolved(),
            "data": described(done.data, source),
            "curve": done.curve,
            "folds": folds,
            "libraries": library_versions(),
            "duration_seconds": round(time.monotonic() - started, 1),
        },
    )
    return Bundle.assemble(config, weights_bytes(tensors), manifest, describe(manifest, done.data, source, recipe))


def described(data: VqaData, source: str) -> Mapping[str, Any]:
    """What a manifest records of its data."""
    counts = {split: len(part) for split, part in data.splits.items()}
    return {"name": source, "digest": data.digest, "dropped": data.dropped, **counts}


def adapter_config(data: VqaData, loaded: Towers, recipe: Recipe) -> dict[str, object]:
    """``adapter_config.json`` of a head over these encoders, which reads all that they tell."""

    def tower(of: ImageEncoder | SentenceEncoder, size: int) -> dict[str, object]:
        return {"name": of.name, "fingerprint": of.fingerprint, "size": size}

    return {
        "peft_type": None,
        "task_type": TASK_TYPE,
        "image_encoder": tower(loaded.images, loaded.images.size),
        "sentence_encoder": tower(loaded.sentences, loaded.sentences.detail),
        "hidden_size": recipe.hidden_size,
        "answers": list(data.answers),
    }


def describe(manifest: Manifest, data: VqaData, source: str, recipe: Recipe) -> str:
    """The bundle's model card."""
    towers = " and ".join(ref.name for ref in manifest.base.values())
    sizes = ", ".join(f"{len(part):,} {split} questions" for split, part in data.splits.items())
    return card(
        manifest,
        summary=f"Answers short questions about images: {recipe.members} heads {recipe.member_size} wide, side by "
        f"side in one, over the frozen {towers}.{PRIOR_NOTE if recipe.prior else ''}",
        data=f"{source}, {sizes} ({data.digest}). Where a question has several answers, the first is the label. "
        f"{data.repeated:,} of the validation questions are also asked in training about the same image; the images of both "
        "sides are not kept apart.",
        note="Validation is a tenth of the questions, held out with the recipe's seed unless the data brings its own; nothing "
        "was picked by it: the weights are those after the last epoch, measured as they are stored. The curve's accuracy is the "
        "mean of the heads by themselves. "
        f"{REFITTED if recipe.refit else ''}"
        f"{FOLDS_NOTE if 'cross-validation' in manifest.metrics else ''}"
        "Unless the data says otherwise answers in digits count as number, names of colours as colour, the others as object. "
        "`accuracy_question_only` and `accuracy_image_only` are those of heads that saw nothing else: what guessing reaches. "
        f"{WUPS_NOTE if 'wups_0.9' in manifest.metrics['validation'] else ''}",
        limits=VQA_LIMITS,
    )


def main(
    data: Data,
    name: Annotated[str, typer.Option(help="adapter name, as clients will select it")],
    output: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    cache: Cache = CACHE,
    image_encoder: Annotated[str, typer.Option(help="name, name:FILE with its weights, or clip:FOLDER")] = DEFAULTS.image_encoder,
    sentence_encoder: Annotated[str, typer.Option(help="minilm, a folder, a hub id, or clip:FOLDER")] = DEFAULTS.sentence_encoder,
    members: Members = DEFAULTS.members,
    member_size: MemberSize = DEFAULTS.member_size,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0)] = DEFAULTS.learning_rate,
    image_scale: ImageScale = DEFAULTS.image_scale,
    answer_similarity: Annotated[
        float, typer.Option(min=0, max=1, help="like answers' share of a target")
    ] = DEFAULTS.answer_similarity,
    prior: Annotated[bool, typer.Option(help="begin with what the image encoder's own classes say")] = DEFAULTS.prior,
    refit: Annotated[
        bool, typer.Option(help="once measured, train again on all questions, the held-out ones too")
    ] = DEFAULTS.refit,
    seed: Annotated[int, typer.Option(min=0, help="of the held-out tenth and of training")] = DEFAULTS.seed,
    folds: Folds = 1,
    grouped: Grouped = False,
    skip_bad: SkipBad = False,
    min_coverage: MinCoverage = MIN_COVERAGE,
    max_answers: MaxAnswers = MAX_ANSWERS,
    wordnet: WordNet = None,
) -> None:
    """Train a visual question answering head and write it to OUTPUT as a bundle."""
    recipe = Recipe(
        image_encoder=image_encoder, sentence_encoder=sentence_encoder, members=members, member_size=member_size,
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, image_scale=image_scale,
        answer_similarity=answer_similarity, prior=prior, refit=refit, seed=seed,
    )  # fmt: skip
    try:
        alike = similarity_of(wordnet)
        loaded = load_vqa_data(data, seed, grouped=grouped, skip_bad=skip_bad, min_coverage=min_coverage, max_answers=max_answers)
        sizes = ", ".join(f"{len(part):,} {split}" for split, part in loaded.splits.items())
        console.print(f"{data.name}: {sizes}; {len(loaded.answers)} answers; {len(loaded.bad)} bad rows left out")
        bundle = train(loaded, recipe, name, data.name, cache, alike, folds=folds, grouped=grouped, skip_bad=skip_bad)
        write_bundle(bundle, output)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    if alike is None:
        console.print(NO_WORDNET, soft_wrap=True)
    console.print(_table(bundle.manifest.metrics))
    console.print(f"[green]{output}[/]: {len(bundle.weights) / 1e6:.2f} MB, {bundle.manifest.digest}", soft_wrap=True)


def _table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("figure", *metrics)
    for figure in dict.fromkeys(name for values in metrics.values() for name in values):
        table.add_row(figure, *(f"{values[figure]:.4f}" if figure in values else "–" for values in metrics.values()))
    return table


if __name__ == "__main__":
    typer.run(main)
