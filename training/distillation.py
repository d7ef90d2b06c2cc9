"""An extracted adapter trained on towards its checkpoint's logits, which makes up for what truncation and LoRA leave out."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import AutoModelForSequenceClassification

from service.models.sources import locate
from training.checkpoint import OPTION
from training.text_model import batches, device, logits_of, uses_bf16

LEARNING_RATE = 1e-4  # the cut adapter is near already, and higher ones lead it away first
WARMUP = 0.06  # of the steps
BATCH = 32


def distil(
    base_model: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    rows: Sequence[Sequence[int]],
    target: Tensor,
    pad_id: int,
    epochs: int,
    done: Callable[[int], None],
) -> dict[str, Tensor]:
    """The adapter's tensors after ``epochs`` over rows of token ids, towards the logits ``target`` (rows, labels).

    No label is looked at. ``done`` gets the number of rows after each batch.
    """
    model = _loaded(base_model, config, tensors, target.shape[1])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    steps = epochs * math.ceil(len(rows) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    shuffle, wanted, bf16 = random.Random(0), target.to(device()), uses_bf16("auto")  # noqa: S311  # an order of rows is no secret
    model.eval()  # the checkpoint's logits are without dropout, and so are those that are to be equal to them
    for _ in range(epochs):
        for chunk in batches(rows, BATCH, shuffle):
            loss = mse_loss(logits_of(model, [rows[i] for i in chunk], pad_id, bf16), wanted[chunk])
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done(len(chunk))
    return {name: tensor.detach().cpu() for name, tensor in get_peft_model_state_dict(model).items()}


def _rate(step: int, steps: int) -> float:
    """The learning rate of a step, from 0, over the highest: warm-up, then a cosine down to none."""
    warmup = max(1, int(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _loaded(base_model: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], label_count: int) -> Any:
    plain = AutoModelForSequenceClassification.from_pretrained(locate(base_model, OPTION), num_labels=label_count)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # peft asks transformers by an old name
        model = get_peft_model(plain, LoraConfig(**{**config, "inference_mode": False, "base_model_name_or_path": None}))
    set_peft_model_state_dict(model, {name: tensor.float() for name, tensor in tensors.items()})
    return model.to(device())
