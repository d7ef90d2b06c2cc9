"""Training a VQA head on embeddings: its recipe, its targets, its fit, and its export as two plain linear layers.

Heads that differ in their seed alone err on different questions, so several are trained and laid side by side: one wider
head whose logits are the mean of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
AfterEpoch = Callable[["HeadModule", float], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the trained head, apart from the data; it goes into the manifest whole."""

    image_encoder: str = "tf_efficientnet_lite0"
    sentence_encoder: str = "minilm"
    members: int = 5
    member_size: int = 350
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    image_scale: float = 0.2
    input_dropout: float = 0.3
    hidden_dropout: float = 0.5
    answer_similarity: float = 0.3
    similarity_temperature: float = 0.1
    refit: bool = True
    seed: int = 0

    @property
    def hidden_size(self) -> int:
        """The width of the head that is written: of all members side by side."""
        return self.members * self.member_size

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
    """The trainable form of one member: dropout, hidden layer, ReLU, dropout, output layer."""

    def __init__(self, inputs: int, answers: int, recipe: Recipe) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(inputs, recipe.member_size), nn.Linear(recipe.member_size, answers)
        self._input_dropout, self._hidden_dropout = recipe.input_dropout, recipe.hidden_dropout

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, answers)."""
        hidden = relu(self.hidden(dropout(x, self._input_dropout, self.training)))
        logits: Tensor = self.output(dropout(hidden, self._hidden_dropout, self.training))
        return logits


@torch.no_grad()
def export(members: Sequence[HeadModule], inputs: Inputs) -> dict[str, Tensor]:
    """The members side by side as one head is served: its logits are the mean of theirs.

    Standardising and scaling are folded into the first layer.
    """
    weight = torch.cat([member.hidden.weight for member in members]) * inputs.gain
    return {
        "hidden.weight": weight,
        "hidden.bias": torch.cat([member.hidden.bias for member in members]) - weight @ inputs.mean,
        "output.weight": torch.cat([member.output.weight for member in members], dim=1) / len(members),
        "output.bias": torch.stack([member.output.bias for member in members]).mean(0),
    }


def similar_answers(embeddings: Tensor, recipe: Recipe) -> Tensor:
    """What stands for each answer as a target, (answers, answers): mostly itself, the rest over answers of like meaning."""
    unit = normalize(embeddings, dim=1)
    near = (unit @ unit.T / recipe.similarity_temperature).softmax(-1)
    return (1 - recipe.answer_similarity) * torch.eye(len(near)) + recipe.answer_similarity * near


def fit_members(
    features: Features, inputs: Inputs, answers: Tensor, recipe: Recipe, after_epoch: AfterEpoch, progress: Progress
) -> list[HeadModule]:
    """Fitted heads that differ in their seed: in what they started from and the order of their examples.

    ``answers`` holds the embeddings of the answers' names; ``after_epoch`` gets a head and its loss after each of its epochs.
    """
    bar = progress.add_task("training", total=recipe.members * recipe.epochs)
    targets = similar_answers(answers, recipe)

    def shown(head: HeadModule, loss: float) -> None:
        progress.advance(bar)
        after_epoch(head, loss)

    members = []
    for number in range(recipe.members):
        torch.manual_seed(recipe.seed * recipe.members + number)
        head = HeadModule(inputs.size, len(answers), recipe)
        members.append(_fit(head, inputs, features.rows["train"], targets, recipe, shown))
    return members


def _fit(head: HeadModule, inputs: Inputs, rows: Tensor, targets: Tensor, recipe: Recipe, after_epoch: AfterEpoch) -> HeadModule:
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(rows) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    bf16 = uses_bf16("auto")
    for _ in range(recipe.epochs):
        head.train()
        total = 0.0
        for places in torch.split(torch.randperm(len(rows)), recipe.batch_size):
            chunk = rows[places]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = head(inputs(chunk))
            loss = cross_entropy(logits.float(), targets[chunk[:, 2]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chunk)
        head.eval()
        after_epoch(head, total / len(rows))
    return head


def _rate(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / WARMUP_STEPS)


@torch.inference_mode()
def predict(head: HeadModule, inputs: Inputs, rows: Tensor) -> Tensor:
    """Logits, (n, answers), of rows of examples."""
    head.eval()
    return torch.cat([head(inputs(chunk)) for chunk in torch.split(rows, 1024)])
