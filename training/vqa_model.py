"""Training a VQA head on embeddings: its recipe, its targets, its fit, and its export as two plain linear layers.

Heads that differ in their seed alone err on different questions, so several are trained, all at once, and laid side by side:
one wider head whose logits are the mean of theirs. A prior (``vqa_prior.py``) is added to each, as much as a gate of its own
that reads the question lets through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, relu

from service.models.vqa_head import PRIOR
from training.text_model import uses_bf16
from training.vqa_features import Features

WARMUP_STEPS = 100
LEAST_DEVIATION = 1e-5
HALF_OPEN = 0.3  # what a gate lets through before it has learnt
CHUNK = 8192  # rows that are read from a table at a time
EVERYTHING = ("image", "question")
AfterEpoch = Callable[["Heads", float], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the trained head, apart from the data; it goes into the manifest whole."""

    image_encoder: str = "tf_efficientnet_lite0"
    sentence_encoder: str = "minilm"
    members: int = 3
    member_size: int = 405
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    image_scale: float = 0.2
    input_dropout: float = 0.3
    hidden_dropout: float = 0.5
    answer_similarity: float = 0.3
    similarity_temperature: float = 0.1
    prior: bool = True
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
    """Standardised embeddings joined for rows of examples: per feature over the training split, the image scaled.

    ``sees`` may be the image or the question alone, for what guessing from either reaches. ``prior`` (image, answers) makes
    of the image's part what ``answers`` (answers, image) say of its embedding, standardised for each answer.
    """

    def __init__(
        self, features: Features, recipe: Recipe, sees: Sequence[str] = EVERYTHING, answers: Tensor | None = None
    ) -> None:
        train, tables = features.rows["train"], {"image": features.images, "question": features.questions}
        scales = {"image": recipe.image_scale, "question": 1.0}
        self._parts = [(tables[part], EVERYTHING.index(part)) for part in sees]
        moments = [_moments(table.__getitem__, train[:, column]) for table, column in self._parts]
        self.mean = torch.cat([mean for mean, _ in moments])
        self.gain = torch.cat([scales[part] * _gain(deviation) for part, (_, deviation) in zip(sees, moments, strict=True)])
        self._shift = -self.mean * self.gain
        self.size, self.prior = len(self.mean), None
        if answers is not None:
            gain = self.gain[: features.images.shape[1]]
            spread = _moments(lambda places: features.images[places].float() @ answers.T, train[:, 0])[1]
            self.prior = torch.where(gain > 0, answers / gain, 0.0).T * _gain(spread)

    def __call__(self, rows: Tensor) -> Tensor:
        """(..., size) of (..., 3) rows."""
        joined = torch.cat([table[rows[..., column]] for table, column in self._parts], dim=-1)
        return torch.addcmul(self._shift, joined, self.gain)


def _moments(at: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (d,), of what is at these places, each of which is read once however often it occurs."""
    places, counts = torch.unique(rows, return_counts=True)
    chunks = [(at(p).double(), c.double()) for p, c in zip(places.split(CHUNK), counts.split(CHUNK), strict=True)]
    mean = torch.stack([count @ chunk for chunk, count in chunks]).sum(0) / len(rows)
    squares = torch.stack([count @ (chunk - mean).square() for chunk, count in chunks]).sum(0)
    return mean.float(), (squares / (len(rows) - 1)).sqrt().float()


def _gain(deviation: Tensor) -> Tensor:
    """What makes each feature's deviation 1; 0 for a constant one, which encoders do have and which would overflow float16."""
    return torch.where(deviation > LEAST_DEVIATION, 1 / deviation, 0.0)


class Heads(nn.Module):
    """Heads in training, each of them dropout, hidden layer, ReLU, dropout, output layer; one product runs all of them.

    With a ``prior`` (image, answers) each has a gate, too: how much of it is added, by the question.
    """

    def __init__(self, inputs: int, answers: int, recipe: Recipe, prior: Tensor | None = None) -> None:
        super().__init__()
        members, size = recipe.members, recipe.member_size
        self.hidden_weight, self.hidden_bias = _layer(members, inputs, size)
        self.output_weight, self.output_bias = _layer(members, size, answers)
        self._input_dropout, self._hidden_dropout = recipe.input_dropout, recipe.hidden_dropout
        self.prior = prior
        if prior is not None:
            self.gate_weight = nn.Parameter(torch.zeros(members, inputs - len(prior), 1))
            self.gate_bias = nn.Parameter(torch.full((members, 1, 1), HALF_OPEN))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (members, n, answers), of inputs, (members, n, size)."""
        dropped = self._dropped(x, self._input_dropout)
        hidden = relu(torch.baddbmm(self.hidden_bias, dropped, self.hidden_weight))
        logits = torch.baddbmm(self.output_bias, self._dropped(hidden, self._hidden_dropout), self.output_weight)
        if self.prior is None:
            return logits
        image = len(self.prior)
        gate = torch.baddbmm(self.gate_bias, dropped[..., image:], self.gate_weight)
        return logits + x[..., :image] @ self.prior.to(x.dtype) * gate

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        """Dropout of a share, rounded to 1/256.

        Its random bytes come eight in one draw: torch's own draws for each element, and takes longer than the products.
        """
        limit = round(256 * share)
        if not self.training or not limit:
            return x
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= limit
        return x * kept.to(x.dtype).mul_(256 / (256 - limit))


def _layer(members: int, inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights, (members, inputs, outputs), and biases, (members, 1, outputs), drawn as torch's linear layer draws its own."""
    bound = inputs**-0.5
    weight = torch.empty(members, inputs, outputs).uniform_(-bound, bound)
    return nn.Parameter(weight), nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))


@torch.no_grad()
def export(heads: Heads, inputs: Inputs) -> dict[str, Tensor]:
    """The heads side by side as one head is served: its logits are the mean of theirs.

    Standardising and scaling are folded into the first layer.
    """
    weight = heads.hidden_weight.transpose(1, 2).flatten(0, 1) * inputs.gain
    layers = {
        "hidden.weight": weight,
        "hidden.bias": heads.hidden_bias.flatten() - weight @ inputs.mean,
        "output.weight": heads.output_weight.flatten(0, 1).T / len(heads.output_weight),
        "output.bias": heads.output_bias.mean((0, 1)),
    }
    return layers if heads.prior is None else layers | _exported_prior(heads.prior, heads, inputs)


def _exported_prior(prior: Tensor, heads: Heads, inputs: Inputs) -> dict[str, Tensor]:
    """The prior and the mean of the gates, which all heads' logits have in common."""
    image, gain, mean = len(prior), inputs.gain, inputs.mean
    weight, gate = prior.T * gain[:image], heads.gate_weight.mean(0).T * gain[image:]
    bias = heads.gate_bias.mean(0)[0] - gate @ mean[image:]
    return dict(zip(PRIOR, (weight, -(weight @ mean[:image]), gate, bias), strict=True))


def similar_answers(embeddings: Tensor, recipe: Recipe) -> Tensor:
    """What stands for each answer as a target, (answers, answers): mostly itself, the rest over answers of like meaning."""
    unit = normalize(embeddings, dim=1)
    near = (unit @ unit.T / recipe.similarity_temperature).softmax(-1)
    return (1 - recipe.answer_similarity) * torch.eye(len(near)) + recipe.answer_similarity * near


def fit_heads(inputs: Inputs, rows: Tensor, answers: Tensor, recipe: Recipe, after_epoch: AfterEpoch) -> Heads:
    """Heads fitted to ``rows``, (n, 3), that differ in what they started from and in the order of their examples.

    ``answers`` holds the embeddings of the answers' names; ``after_epoch`` gets the heads and their mean loss.
    """
    torch.manual_seed(recipe.seed)
    heads = Heads(inputs.size, len(answers), recipe, inputs.prior)
    targets = similar_answers(answers, recipe)
    # Fused, since over this many small weights the plain one takes longer than the products.
    optimizer = torch.optim.AdamW(heads.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    steps = recipe.epochs * math.ceil(len(rows) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    bf16 = uses_bf16("auto")
    for _ in range(recipe.epochs):
        heads.train()
        total = 0.0
        orders = torch.stack([torch.randperm(len(rows)) for _ in range(recipe.members)])
        for places in torch.split(orders, recipe.batch_size, dim=1):
            chunk = rows[places]
            x = inputs(chunk)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = heads(x.bfloat16() if bf16 else x)
            # The sum over heads of each one's mean: no head's gradient depends on how many there are.
            loss = cross_entropy(logits.flatten(0, 1).float(), targets[chunk[..., 2].flatten()], reduction="sum")
            optimizer.zero_grad()
            (loss / places.shape[1]).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
            total += loss.item()
        heads.eval()
        after_epoch(heads, total / orders.numel())
    return heads


def _rate(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / WARMUP_STEPS)


@torch.inference_mode()
def predict(heads: Heads, inputs: Inputs, rows: Tensor) -> Tensor:
    """Logits of every head, (members, n, answers), of rows of examples."""
    heads.eval()
    members = len(heads.hidden_weight)
    return torch.cat([heads(inputs(chunk).expand(members, -1, -1)) for chunk in torch.split(rows, 1024)], dim=1)
