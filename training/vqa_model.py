"""Training a VQA head on embeddings: its recipe, its targets, its fit, and its export as two plain linear layers.

Heads that differ in their seed alone differ by more than a point, so the one that is kept learns from the mean of several.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, normalize, relu

from training.text_model import uses_bf16
from training.vqa_features import Features

WARMUP_STEPS = 100
LEAST_DEVIATION = 1e-5
AfterEpoch = Callable[["HeadModule", int, float], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the trained head, apart from the data; it goes into the manifest whole."""

    image_encoder: str = "tf_efficientnet_lite0"
    sentence_encoder: str = "minilm"
    hidden_size: int = 512
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    image_scale: float = 0.2
    input_dropout: float = 0.3
    hidden_dropout: float = 0.5
    answer_similarity: float = 0.3
    similarity_temperature: float = 0.1
    teachers: int = 5
    student_epochs: int = 60
    student_dropout: float = 0.05
    swapped_images: float = 0.7
    seed: int = 0

    def resolved(self) -> dict[str, Any]:
        """The recipe with the precision that this machine uses."""
        return {**asdict(self), "precision": "bf16" if uses_bf16("auto") else "fp32"}


class Inputs:
    """Standardised embeddings joined for rows of examples: per feature over the training split, the image scaled."""

    def __init__(self, features: Features, recipe: Recipe) -> None:
        train = features.rows["train"]
        self._images, self._questions = features.images, features.questions
        images, questions = features.images[train[:, 0]], features.questions[train[:, 1]]
        self.mean = torch.cat([images.mean(0), questions.mean(0)])
        self.gain = torch.cat([recipe.image_scale * _gain(images), _gain(questions)])
        self.size = len(self.mean)

    def __call__(self, rows: Tensor) -> Tensor:
        """(n, d + e) of (n, 3) rows."""
        joined = torch.cat([self._images[rows[:, 0]], self._questions[rows[:, 1]]], dim=1)
        return (joined - self.mean) * self.gain


def _gain(values: Tensor) -> Tensor:
    """What makes each feature's deviation 1; 0 for a constant one, which encoders do have and which would overflow float16."""
    deviation = values.std(0)
    return torch.where(deviation > LEAST_DEVIATION, 1 / deviation, 0.0)


class HeadModule(nn.Module):
    """The trainable form of a head: dropout, hidden layer, ReLU, dropout, output layer."""

    def __init__(self, inputs: int, answers: int, recipe: Recipe, *, student: bool = False) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(inputs, recipe.hidden_size), nn.Linear(recipe.hidden_size, answers)
        self._input_dropout = recipe.student_dropout if student else recipe.input_dropout
        self._hidden_dropout = recipe.student_dropout if student else recipe.hidden_dropout

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, answers)."""
        hidden = relu(self.hidden(dropout(x, self._input_dropout, self.training)))
        logits: Tensor = self.output(dropout(hidden, self._hidden_dropout, self.training))
        return logits

    @torch.no_grad()
    def export(self, inputs: Inputs) -> dict[str, Tensor]:
        """The head's tensors as served, with standardising and scaling folded into the first layer."""
        weight = self.hidden.weight * inputs.gain
        bias = self.hidden.bias - weight @ inputs.mean
        return {
            "hidden.weight": weight,
            "hidden.bias": bias,
            "output.weight": self.output.weight,
            "output.bias": self.output.bias,
        }


def similar_answers(embeddings: Tensor, recipe: Recipe) -> Tensor:
    """What stands for each answer as a target, (answers, answers): mostly itself, the rest over answers of like meaning."""
    unit = normalize(embeddings, dim=1)
    near = (unit @ unit.T / recipe.similarity_temperature).softmax(-1)
    return (1 - recipe.answer_similarity) * torch.eye(len(near)) + recipe.answer_similarity * near


def fit_head(
    features: Features, inputs: Inputs, answers: Tensor, recipe: Recipe, after_epoch: AfterEpoch, progress: Progress
) -> HeadModule:
    """A fitted head. With ``teachers`` it learns from the mean of so many heads, else from the labels itself.

    ``answers`` holds the embeddings of the answers' names; ``after_epoch`` gets the head, each epoch's number, from 1,
    and its loss.
    """
    rows = features.rows["train"]
    softened = similar_answers(answers, recipe)
    bar = progress.add_task(
        "training", total=recipe.teachers * recipe.epochs + (recipe.student_epochs if recipe.teachers else recipe.epochs)
    )

    def shown(head: HeadModule, epoch: int, loss: float) -> None:
        progress.advance(bar)
        after_epoch(head, epoch, loss)

    def of_labels(chunk: Tensor, _: Tensor) -> Tensor:
        return softened[chunk[:, 2]]

    def fresh(seed: int, *, student: bool = False) -> HeadModule:
        torch.manual_seed(recipe.seed + seed)
        return HeadModule(inputs.size, len(answers), recipe, student=student)

    if not recipe.teachers:
        return _fit(fresh(0), inputs, rows, of_labels, recipe.epochs, recipe, shown)
    teachers = [
        _fit(fresh(number), inputs, rows, of_labels, recipe.epochs, recipe, lambda *_: progress.advance(bar))
        for number in range(1, recipe.teachers + 1)
    ]

    @torch.inference_mode()
    def of_teachers(_: Tensor, x: Tensor) -> Tensor:
        return torch.stack([teacher(x).float().softmax(-1) for teacher in teachers]).mean(0)

    return _fit(fresh(0, student=True), inputs, rows, of_teachers, recipe.student_epochs, recipe, shown, recipe.swapped_images)


def _fit(
    head: HeadModule,
    inputs: Inputs,
    rows: Tensor,
    targets: Callable[[Tensor, Tensor], Tensor],
    epochs: int,
    recipe: Recipe,
    after_epoch: AfterEpoch,
    swapped: float = 0.0,
) -> HeadModule:
    """Fit ``head`` to ``targets`` of a chunk of rows and its inputs; a share ``swapped`` of the rows gets another image.

    Only a teacher can say what follows from a question about another image, and there it is what shows how it generalises.
    """
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = epochs * math.ceil(len(rows) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    bf16 = uses_bf16("auto")
    for epoch in range(1, epochs + 1):
        head.train()
        total = 0.0
        for places in torch.split(torch.randperm(len(rows)), recipe.batch_size):
            chunk = rows[places]
            others = rows[torch.randint(len(rows), (len(chunk),)), 0]
            chunk = torch.cat([torch.where(torch.rand(len(chunk)) < swapped, others, chunk[:, 0])[:, None], chunk[:, 1:]], dim=1)
            x = inputs(chunk)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits, target = head(x), targets(chunk, x)
            loss = cross_entropy(logits.float(), target.clone())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chunk)
        head.eval()
        after_epoch(head, epoch, total / len(rows))
    return head


def _rate(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / WARMUP_STEPS)


@torch.inference_mode()
def predict(head: HeadModule, inputs: Inputs, rows: Tensor) -> Tensor:
    """Logits, (n, answers), of rows of examples."""
    head.eval()
    return torch.cat([head(inputs(chunk)) for chunk in torch.split(rows, 1024)])
