"""One pair of frozen towers, the heads on it and what guessing reaches: what `train-vqa` writes and `study-vqa` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.progress import Progress
from torch import Tensor

from service.models.image_encoder import ImageEncoder, load_image_encoder
from service.models.loaded_vqa_head import LoadedVqaHead
from service.models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from service.models.vqa_head import VqaHead
from training.bundles import halve
from training.vqa_data import VqaData
from training.vqa_features import Features
from training.vqa_measure import Similarity, figures
from training.vqa_model import Heads, Inputs, Recipe, export, fit_heads, predict
from training.vqa_prior import answer_weights

CPU = torch.device("cpu")
BASELINES = ("question", "image")  # what each of them sees
TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Towers:
    """The frozen encoders of images and of questions; ``loaded`` is what the first was loaded by, a file of weights with it."""

    images: ImageEncoder
    sentences: SentenceEncoder
    loaded: str

    @classmethod
    def load(cls, image_encoder: str, sentence_encoder: str) -> Towers:
        """Raises :class:`StartupError` when one of them cannot be loaded."""
        return cls(load_image_encoder(image_encoder, CPU), load_sentence_encoder(sentence_encoder, CPU), image_encoder)


@dataclass(frozen=True, slots=True)
class Run:
    """Fitted heads, as ``tensors`` in float16, their ``curve``, and the answers given to every split but the training one.

    ``named`` has the embeddings of the answers' names, ``prior`` what their fit began with, if anything.
    ``predicted`` has those of the head as it is served, ``guessed`` those of heads that see the question or the image alone,
    by what they see.
    """

    data: VqaData
    features: Features
    named: Tensor
    prior: Tensor | None
    tensors: dict[str, Tensor]
    curve: list[dict[str, float]]
    predicted: dict[str, list[str]]
    guessed: dict[str, dict[str, list[str]]]

    def metrics(self, alike: Similarity | None) -> dict[str, dict[str, float]]:
        """The figures of each split, those of guessing among them."""
        found = {}
        for split, answers in self.predicted.items():
            examples = self.data.splits[split]
            found[split] = figures(answers, examples, alike)
            for sees in BASELINES:
                found[split][f"accuracy_{sees}_only"] = figures(self.guessed[sees][split], examples)["accuracy"]
        return found


def run(data: VqaData, features: Features, towers: Towers, recipe: Recipe, progress: Progress) -> Run:
    """Fit the heads and the two that guess to what was embedded, and answer every split but the training one."""
    named = _names(towers.sentences, data.answers)
    asked = {name: rows for name, rows in features.rows.items() if name != TRAIN}
    guessed = {}
    for sees in BASELINES:
        inputs = Inputs(features, recipe, (sees,))
        heads, _ = _fit(features, inputs, named, recipe, progress, f"{sees} alone")
        guessed[sees] = {name: _answers(predict(heads, inputs, rows).mean(0), data) for name, rows in asked.items()}
    prior = answer_weights(towers.loaded, towers.sentences, named) if recipe.prior else None
    tensors, curve = fit(features, named, recipe, progress, prior)
    served = VqaHead.of(tensors).to(CPU)
    predicted = {name: _answers(logits(served, features, rows), data) for name, rows in asked.items()}
    return Run(data, features, named, prior, tensors, curve, predicted, guessed)


def fit(
    features: Features, named: Tensor, recipe: Recipe, progress: Progress, prior: Tensor | None = None, shown: str = "training"
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The tensors in float16, and every epoch's loss and held-out accuracy, means over the members by themselves.

    ``prior`` (answers, image) is what to begin with (``vqa_prior.py``); ``shown`` is what the bar of progress says.
    Nothing is picked by held-out accuracy: every member is kept as it is after its last epoch.
    """
    inputs = Inputs(features, recipe, answers=prior)
    heads, curve = _fit(features, inputs, named, recipe, progress, shown)
    return halve(export(heads, inputs)), curve


def everything(features: Features) -> Features:
    """The same features with the held-out questions, as far as their answers are known, among the training ones."""
    held = features.rows["validation"]
    joined = torch.cat([features.rows[TRAIN], held[held[:, 2] >= 0]])
    return replace(features, rows={**features.rows, TRAIN: joined})


def _fit(
    features: Features, inputs: Inputs, named: Tensor, recipe: Recipe, progress: Progress, shown: str
) -> tuple[Heads, list[dict[str, float]]]:
    bar = progress.add_task(shown, total=recipe.epochs)
    held = features.rows["validation"]
    curve: list[dict[str, float]] = []

    def after_epoch(heads: Heads, loss: float) -> None:
        accuracy = float((predict(heads, inputs, held).argmax(-1) == held[:, 2]).float().mean())
        curve.append({"epoch": len(curve) + 1, "loss": round(loss, 4), "accuracy": round(accuracy, 4)})
        progress.advance(bar)

    return fit_heads(inputs, features.rows[TRAIN], named, recipe, after_epoch), curve


@torch.inference_mode()
def logits(head: LoadedVqaHead, features: Features, rows: Tensor) -> Tensor:
    """What a head makes of rows of the features, (rows, answers)."""
    chunks = [head.logits(features.images[r[:, 0]], features.questions[r[:, 1]]) for r in torch.split(rows, 1024)]
    return torch.cat(chunks)


def _answers(logits: Tensor, data: VqaData) -> list[str]:
    return [data.answers[place] for place in logits.argmax(-1).tolist()]


def _names(sentences: SentenceEncoder, answers: Sequence[str]) -> Tensor:
    """Embeddings of what the answers are called, by which their likeness is judged."""
    return sentences.embed(sentences.tokenize([answer.replace("_", " ") for answer in answers])).cpu().clone()
