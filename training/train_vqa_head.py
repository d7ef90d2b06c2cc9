"""Train a visual question answering head on frozen embeddings, and write it as a bundle.

    python -m training.train_vqa_head ../shared/data/daquar --name vqa --output runs/vqa

DATA is a folder laid out as DAQUAR's (data_train.csv, images/, perhaps answer_space.txt), or a CSV with image paths.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from service.errors import QuickchangeError
from service.models.image_encoder import ImageEncoder, load_image_encoder
from service.models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from service.models.vqa_head import TASK_TYPE, VqaHead
from service.store.bundle import VISUAL_QUESTION_ANSWERING, BaseRef, Bundle, Manifest
from training.bundles import halve, library_versions, weights_bytes, write_bundle
from training.cards import VQA_LIMITS, card
from training.data import DataError
from training.vqa_data import VqaData, kind_of, load_vqa_data
from training.vqa_features import Features, embed
from training.vqa_model import HeadModule, Inputs, Recipe, export, fit_members, predict

REFITTED = """The weights here were then trained once more by the same recipe on all questions, the held-out ones among them, so \
the figures are those of a twin that had seen a tenth less, and cannot be measured again on these weights. """
DEFAULTS = Recipe()
CPU = torch.device("cpu")
console = Console()


def train(data: VqaData, recipe: Recipe, name: str, source: str, cache: Path) -> Bundle:
    """Embed once, train, and return the finished bundle."""
    started = time.monotonic()
    images, sentences = load_image_encoder(recipe.image_encoder, CPU), load_sentence_encoder(recipe.sentence_encoder, CPU)
    with Progress(console=console) as progress:
        features = embed(data, images, sentences, cache, progress)
        named = _answer_embeddings(sentences, data.answers)
        blind = _question_only(features, named, recipe, progress)
        measured, curve = fit(features, named, recipe, progress)
        tensors = fit(everything(features), named, recipe, progress)[0] if recipe.refit else measured
    config = adapter_config(data, images, sentences, recipe)
    towers = (images.size, images.fingerprint), (sentences.size, sentences.fingerprint)
    head = VqaHead.parse(config, measured, data.answers, *towers).to(CPU)
    manifest = Manifest(
        name=name,
        task=VISUAL_QUESTION_ANSWERING,
        labels=data.answers,
        base={
            "image_encoder": BaseRef(name=images.name, fingerprint=images.fingerprint),
            "sentence_encoder": BaseRef(name=sentences.name, fingerprint=sentences.fingerprint),
        },
        metrics={"validation": {**measure(head, features, data.answers), "accuracy_question_only": blind}},
        recipe={
            **recipe.resolved(),
            "data": {
                "name": source,
                "digest": data.digest,
                "dropped": data.dropped,
                **{s: len(p) for s, p in data.splits.items()},
            },
            "curve": curve,
            "libraries": library_versions(),
            "duration_seconds": round(time.monotonic() - started, 1),
        },
    )
    return Bundle.assemble(config, weights_bytes(tensors), manifest, describe(manifest, data, source, recipe))


def fit(
    features: Features, answers: Tensor, recipe: Recipe, progress: Progress
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The tensors in float16, and every epoch's loss and held-out accuracy, means over the members by themselves.

    Nothing is picked by held-out accuracy: every member is kept as it is after its last epoch.
    """
    inputs = Inputs(features, recipe)
    held = features.rows["validation"]
    figures: list[tuple[float, float]] = []

    def after_epoch(head: HeadModule, loss: float) -> None:
        figures.append((loss, _share(predict(head, inputs, held).argmax(-1), held[:, 2])))

    tensors = export(fit_members(features, inputs, answers, recipe, after_epoch, progress), inputs)
    means = torch.tensor(figures).view(recipe.members, recipe.epochs, 2).mean(0).tolist()
    curve = [
        {"epoch": epoch, "loss": round(loss, 4), "accuracy": round(accuracy, 4)}
        for epoch, (loss, accuracy) in enumerate(means, start=1)
    ]
    return halve(tensors), curve


def everything(features: Features) -> Features:
    """The same features with the held-out questions, as far as their answers are known, among the training ones."""
    held = features.rows["validation"]
    return replace(features, rows={"train": torch.cat([features.rows["train"], held[held[:, 2] >= 0]]), "validation": held})


def measure(head: VqaHead, features: Features, answers: Sequence[str]) -> dict[str, float]:
    """Held-out accuracy of the head as served: over all questions, and over those with each kind of answer."""
    rows = features.rows["validation"]
    predicted = head.logits(features.images[rows[:, 0]], features.questions[rows[:, 1]]).argmax(-1)
    kinds = [kind_of(answers[answer]) if answer >= 0 else "object" for answer in rows[:, 2].tolist()]
    figures = {"accuracy": _share(predicted, rows[:, 2])}
    for kind in ("colour", "number", "object"):
        chosen = torch.tensor([found == kind for found in kinds])
        if bool(chosen.any()):
            figures[f"accuracy_{kind}"] = _share(predicted[chosen], rows[chosen, 2])
    return figures


def _question_only(features: Features, answers: Tensor, recipe: Recipe, progress: Progress) -> float:
    """Held-out accuracy of members that see no image: what guessing from the question alone reaches."""
    blind = replace(recipe, image_scale=0.0)
    inputs = Inputs(features, blind)
    held = features.rows["validation"]
    members = fit_members(features, inputs, answers, blind, lambda *_: None, progress)
    logits = torch.stack([predict(member, inputs, held) for member in members]).mean(0)
    return _share(logits.argmax(-1), held[:, 2])


def _answer_embeddings(sentences: SentenceEncoder, answers: Sequence[str]) -> Tensor:
    return sentences.embed(sentences.tokenize([answer.replace("_", " ") for answer in answers])).cpu().clone()


def _share(predicted: Tensor, true: Tensor) -> float:
    return round(float((predicted == true).float().mean()), 4)


def adapter_config(data: VqaData, images: ImageEncoder, sentences: SentenceEncoder, recipe: Recipe) -> dict[str, object]:
    """``adapter_config.json`` of a head over these encoders."""

    def described(tower: ImageEncoder | SentenceEncoder) -> dict[str, object]:
        return {"name": tower.name, "fingerprint": tower.fingerprint, "size": tower.size}

    return {
        "peft_type": None,
        "task_type": TASK_TYPE,
        "image_encoder": described(images),
        "sentence_encoder": described(sentences),
        "hidden_size": recipe.hidden_size,
        "answers": list(data.answers),
    }


def describe(manifest: Manifest, data: VqaData, source: str, recipe: Recipe) -> str:
    """The bundle's model card."""
    towers = " and ".join(ref.name for ref in manifest.base.values())
    sizes = ", ".join(f"{len(part):,} {split} questions" for split, part in data.splits.items())
    return card(
        manifest,
        summary=f"Answers short questions about indoor photographs: {recipe.members} heads {recipe.member_size} wide, side by "
        f"side in one, over the frozen {towers}.",
        data=f"{source}, {sizes} ({data.digest}). Where a question has several answers, the first is the label. "
        f"{data.repeated:,} of the validation questions are also asked in training about the same image; the images of both "
        "sides are not kept apart.",
        note="Validation is a tenth of the questions, held out with the recipe's seed; nothing was picked by it: the weights are "
        "those after the last epoch, measured as they are stored. The curve's accuracy is the mean of the heads by themselves. "
        f"{REFITTED if recipe.refit else ''}"
        "Answers in digits count as number, names of colours as colour, the others as object.",
        limits=VQA_LIMITS,
    )


def main(
    data: Annotated[Path, typer.Argument(help="folder laid out as DAQUAR's, or a CSV with question, answer and image path")],
    name: Annotated[str, typer.Option(help="adapter name, as clients will select it")],
    output: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    cache: Annotated[Path, typer.Option(help="folder for embeddings, kept by content")] = Path("runs/embeddings"),
    image_encoder: Annotated[str, typer.Option(help="name, or name:FILE with its weights")] = DEFAULTS.image_encoder,
    sentence_encoder: Annotated[str, typer.Option(help="minilm, a folder, or a hub id")] = DEFAULTS.sentence_encoder,
    members: Annotated[int, typer.Option(min=1, help="heads side by side, each trained by itself")] = DEFAULTS.members,
    member_size: Annotated[int, typer.Option(min=1, help="width of each")] = DEFAULTS.member_size,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0)] = DEFAULTS.learning_rate,
    image_scale: Annotated[float, typer.Option(min=0, help="of image features beside the question's")] = DEFAULTS.image_scale,
    answer_similarity: Annotated[
        float, typer.Option(min=0, max=1, help="like answers' share of a target")
    ] = DEFAULTS.answer_similarity,
    refit: Annotated[
        bool, typer.Option(help="once measured, train again on all questions, the held-out ones too")
    ] = DEFAULTS.refit,
    seed: Annotated[int, typer.Option(min=0, help="of the held-out tenth and of training")] = DEFAULTS.seed,
    grouped: Annotated[bool, typer.Option("--grouped", help="keep equal questions about one image on one side")] = False,
) -> None:
    """Train a visual question answering head and write it to OUTPUT as a bundle."""
    recipe = Recipe(
        image_encoder=image_encoder, sentence_encoder=sentence_encoder, members=members, member_size=member_size,
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, image_scale=image_scale,
        answer_similarity=answer_similarity, refit=refit, seed=seed,
    )  # fmt: skip
    try:
        loaded = load_vqa_data(data, seed, grouped=grouped)
        console.print(
            f"{data.name}: {', '.join(f'{len(p)} {s}' for s, p in loaded.splits.items())}; {len(loaded.answers)} answers"
        )
        bundle = train(loaded, recipe, name, data.name, cache)
    except (DataError, QuickchangeError) as error:
        console.print(f"[red]error:[/] {error}")
        raise typer.Exit(1) from None
    write_bundle(bundle, output)
    console.print(f"[green]{output}[/]: {len(bundle.weights) / 1e6:.2f} MB, {bundle.manifest.digest}")
    console.print(
        "  validation: " + ", ".join(f"{key} {value:.4f}" for key, value in bundle.manifest.metrics["validation"].items())
    )


if __name__ == "__main__":
    typer.run(main)
