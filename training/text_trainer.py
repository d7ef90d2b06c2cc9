"""A text model in training: one step, predictions, and what a checkpoint holds of it. Processes share every batch."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from training.data import TextData
from training.parameters import count_parameters
from training.text_model import LORA, Recipe, batches, build, logits_of, tokenise, uses_bf16
from training.text_objective import Objective

TRAIN = "train"
PREDICTED_AT_ONCE = 64  # rows
MODEL, OPTIMIZER, GROUPS, SCHEDULE = "model/", "optimizer/", "groups", "schedule"
AVERAGE, AVERAGED = "average/", "averaged"
HELD = 0.4  # of the highest learning rate, while weights are averaged


def rate(step: int, warmup: int, averages_from: int, steps: int) -> float:
    """The learning rate of a step, from 0, over the highest: warm-up, then a cosine down to none, or to where it is held."""
    if step < warmup:
        return step / warmup
    low = HELD if averages_from < steps else 0.0
    done = min(1.0, (step - warmup) / max(1, averages_from - warmup))
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


class TextTrainer:
    """The model of ``recipe`` with its optimizer, and the token ids of ``data``.

    A step's dropout is drawn from the seed and the step's number, so that a resumed run needs no generator's state.
    """

    def __init__(self, accelerator: Accelerator, data: TextData, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.accelerator, self.recipe = accelerator, recipe
        self.core, self.tokenizer = build(recipe, data.labels, data.problem_type)
        self.rows = {split: tokenise(self.tokenizer, part.texts, recipe.max_length) for split, part in data.splits.items()}
        self.objective = Objective(data, recipe, accelerator.device)
        self.steps_per_epoch = math.ceil(len(self.rows[TRAIN]) / recipe.batch_size)
        self.steps = self.steps_per_epoch * recipe.epochs
        self._bf16 = uses_bf16(recipe.precision)  # not accelerate's, which one process can set only once
        self._parameters = [p for p in self.core.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self._parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
        self._averages_from = round((1 - recipe.average) * self.steps)
        warmup = int(recipe.warmup * self.steps)
        self._schedule = LambdaLR(optimizer, lambda step: rate(step, warmup, self._averages_from, self.steps))
        self._model, self._optimizer = accelerator.prepare(self.core, optimizer)
        self._average = [torch.zeros_like(p) for p in self._parameters] if recipe.average else []
        self._averaged, self._shown = 0, False  # how many weights are in it, and whether the model has them now

    def batches(self, epoch: int) -> list[list[int]]:
        """The training rows in the order of this epoch, from 1."""
        shuffle = random.Random(f"{self.recipe.seed}/{epoch}")  # noqa: S311  # an order of rows is no secret
        return list(batches(self.rows[TRAIN], self.recipe.batch_size, shuffle))

    def step(self, number: int, whole: Sequence[int]) -> float:
        """Learn from the rows ``whole``, which the processes share and do together what one would; their mean loss."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(random.Random(f"{self.recipe.seed}/{number}/{rank}").getrandbits(63))  # noqa: S311  # as above
        mine = whole[rank::processes] or whole[:1]
        share = processes if rank < len(whole) else 0  # gradients are averaged over the processes
        loss = share * self._loss(mine, whole)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        if self._average and number > self._averages_from:
            self._averaged += 1
            with torch.no_grad():
                torch._foreach_lerp_(self._average, self._parameters, 1 / self._averaged)
        return float(self.accelerator.reduce(loss.detach(), "mean"))

    def _loss(self, mine: Sequence[int], whole: Sequence[int]) -> Tensor:
        """The part of the rows ``mine`` in the loss of all rows ``whole``; with R-Drop each goes through the model twice."""
        rows = [self.rows[TRAIN][i] for i in mine] * (2 if self.recipe.r_drop else 1)
        logits = logits_of(self._model, rows, self.tokenizer.pad_token_id, self._bf16)
        if not self.recipe.r_drop:
            return self.objective.loss(logits, mine, whole)
        one, other = logits.chunk(2)
        return self.objective.loss_of_both(one, other, mine, whole)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have the mean of its weights meanwhile, once there is one."""
        if not self._averaged:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """The model's weights for the averaged ones, or the other way round."""
        for parameter, kept in zip(self._parameters, self._average, strict=True):
            before = parameter.clone()
            parameter.copy_(kept)
            kept.copy_(before)
        self._shown = not self._shown

    def train(self) -> None:
        """Turn dropout on; predictions turn it off."""
        self.core.train()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def logits(self, split: str, between: Callable[[], None] = lambda: None) -> Tensor:
        """Float32 logits, (rows, labels), in the data's units, of every row of a split, computed in float32.

        ``between`` is called before each batch, and may raise.
        """
        rows, rank, processes = self.rows[split], self.accelerator.process_index, self.accelerator.num_processes
        self.core.eval()
        found = torch.zeros(len(rows), self.core.config.num_labels, device=self.accelerator.device)
        with torch.inference_mode():
            for chunk in list(batches(rows, PREDICTED_AT_ONCE))[rank::processes]:
                between()
                found[chunk] = logits_of(self.core, [rows[i] for i in chunk], self.tokenizer.pad_token_id, bf16=False)
        gathered: Tensor = self.accelerator.reduce(found.clone(), "sum")  # every row is zero but in one process
        return gathered.cpu()

    def tensors(self) -> dict[str, Tensor]:
        """A copy of what training changes, by the names that a file gives it."""
        found = get_peft_model_state_dict(self.core) if self.recipe.method == LORA else self.core.state_dict()
        return copy.deepcopy({name: tensor.detach().cpu() for name, tensor in found.items()})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put such tensors back into the model."""
        floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        if self.recipe.method == LORA:
            set_peft_model_state_dict(self.core, floats)
        else:
            self.core.load_state_dict(floats)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model, the optimizer, the schedule and the averages, as tensors and as facts that JSON holds exactly."""
        if self._shown:
            self._exchange()
            try:
                return self.state()
            finally:
                self._exchange()
        optimizer = self._optimizer.state_dict()
        moments = {f"{OPTIMIZER}{i}/{key}": value for i, entry in optimizer["state"].items() for key, value in entry.items()}
        weights = {f"{MODEL}{name}": tensor for name, tensor in self.tensors().items()}
        schedule = {key: value for key, value in self._schedule.state_dict().items() if key != "lr_lambdas"}
        averages = {f"{AVERAGE}{i}": tensor.clone() for i, tensor in enumerate(self._average)}
        facts = {GROUPS: optimizer["param_groups"], SCHEDULE: schedule, AVERAGED: self._averaged}
        return weights | moments | averages, facts

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        self.restore({name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(OPTIMIZER):
                number, key = name.removeprefix(OPTIMIZER).split("/")
                moments.setdefault(int(number), {})[key] = tensor
        self._optimizer.load_state_dict({"state": moments, "param_groups": facts[GROUPS]})
        self._schedule.load_state_dict({**facts[SCHEDULE], "lr_lambdas": [None]})
        self._averaged = facts[AVERAGED]
        for i, kept in enumerate(self._average):
            kept.copy_(tensors[f"{AVERAGE}{i}"])

    def count_parameters(self) -> tuple[int, int]:
        """How many parameters are trained, and how many there are."""
        return count_parameters(self.core)
