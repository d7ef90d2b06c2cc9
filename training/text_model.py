"""A base model with a trainable LoRA adapter and head: building, batching, fitting, predicting."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_cosine_schedule_with_warmup
from transformers.utils import logging as hub_logging

from service.models.sources import locate
from training.data import Split

MEGABATCH = 50  # batches that are shuffled together and then sorted by length


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the trained weights, apart from the data; it goes into the manifest whole."""

    base_model: str = "minilm"
    r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    target_modules: str = "all-linear"
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06
    label_smoothing: float = 0.0
    class_weights: str = "none"
    max_length: int = 128
    precision: str = "auto"
    select: str = "accuracy"
    seed: int = 0
    method: str = "lora"
    patience: int = 0
    calibrate: bool = True

    def resolved(self) -> dict[str, Any]:
        """The recipe with ``auto`` replaced by what this machine uses."""
        return {**asdict(self), "precision": "bf16" if uses_bf16(self.precision) else "fp32", "device": str(device())}


def device() -> torch.device:
    """The accelerator, where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast: always for ``bf16``, for ``auto`` where the hardware multiplies it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def build(recipe: Recipe, labels: Sequence[str], problem_type: str) -> tuple[Any, Any]:
    """The base model with a fresh head, and by ``lora`` an adapter, and its tokenizer."""
    source = locate(recipe.base_model, "--base-model")
    hub_logging.set_verbosity_error()  # else it reports the new head as missing from the checkpoint
    hub_logging.disable_progress_bar()
    names = dict(enumerate(labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        source,
        num_labels=len(labels),
        id2label=names,
        label2id={name: i for i, name in names.items()},
        problem_type=problem_type,
    )
    tokenizer = AutoTokenizer.from_pretrained(source)
    if recipe.method == "full":
        return model.to(device()), tokenizer
    targets: Any = recipe.target_modules if recipe.target_modules == "all-linear" else recipe.target_modules.split(",")
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=recipe.r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # peft asks transformers by an old name
        tuned = get_peft_model(model, config)
    return tuned.to(device()), tokenizer


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, truncated to ``max_length`` tokens."""
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return ids


def batches(rows: Sequence[Sequence[int]], size: int, shuffle: random.Random | None = None) -> Iterator[list[int]]:
    """Row numbers in batches of about one length: little padding, and random enough where ``shuffle`` is given."""
    order = list(range(len(rows)))
    if shuffle is None:
        order.sort(key=lambda i: len(rows[i]))
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    shuffle.shuffle(order)
    mega = size * MEGABATCH
    grouped = [i for start in range(0, len(order), mega) for i in sorted(order[start : start + mega], key=lambda i: len(rows[i]))]
    chunks = [grouped[i : i + size] for i in range(0, len(grouped), size)]
    shuffle.shuffle(chunks)
    yield from chunks


def logits_of(model: Any, rows: Sequence[Sequence[int]], pad_id: int, bf16: bool) -> Tensor:
    """Float32 logits, (rows, labels), of one padded batch."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device())
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device())
    with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits.float()


def predict_logits(model: Any, rows: Sequence[Sequence[int]], pad_id: int, batch_size: int = 64) -> Tensor:
    """Float32 logits, (rows, labels), for each row of token ids, computed in float32."""
    model.eval()
    found = torch.zeros(len(rows), model.config.num_labels)
    with torch.inference_mode():
        for chunk in batches(rows, batch_size):
            found[chunk] = logits_of(model, [rows[i] for i in chunk], pad_id, bf16=False).cpu()
    return found


def fit(
    model: Any,
    rows: Sequence[Sequence[int]],
    split: Split,
    recipe: Recipe,
    pad_id: int,
    after_epoch: Callable[[int, float], None],
    progress: Progress,
    on_progress: Callable[[Mapping[str, float]], None] | None = None,
) -> None:
    """Train the adapter and head in place; ``after_epoch`` gets each epoch's number, from 1, and its mean loss."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    per_epoch = math.ceil(len(rows) / recipe.batch_size)
    steps = per_epoch * recipe.epochs
    schedule = get_cosine_schedule_with_warmup(optimizer, int(recipe.warmup * steps), steps)
    weights, bf16 = class_weights(split, model.config.num_labels, recipe), uses_bf16(recipe.precision)
    shuffle = random.Random(recipe.seed)  # noqa: S311  # an order of rows is no secret
    bar, step, began = progress.add_task("training", total=steps), 0, time.monotonic()
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        total = 0.0
        for chunk in batches(rows, recipe.batch_size, shuffle):
            logits = logits_of(model, [rows[i] for i in chunk], pad_id, bf16)
            target = torch.tensor([split.labels[i] for i in chunk], device=logits.device)
            loss = cross_entropy(logits, target, weight=weights, label_smoothing=recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
            progress.update(bar, advance=1, description=f"epoch {epoch}/{recipe.epochs}, loss {loss.item():.3f}")
            step += 1
            if on_progress is not None:
                speed = step * recipe.batch_size / (time.monotonic() - began)
                on_progress({"epoch": epoch, "step": step, "steps": steps, "loss": loss.item(), "texts_per_second": speed})
        after_epoch(epoch, total / per_epoch)


def class_weights(split: Split, label_count: int, recipe: Recipe) -> Tensor | None:
    """Loss weight of each label: its inverse frequency to the power 1 (``balanced``) or ½ (``sqrt``), mean 1."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[recipe.class_weights]
    if not power:
        return None
    counts = torch.bincount(torch.tensor(split.labels), minlength=label_count).clamp(min=1).float()
    weights = counts.pow(-power)
    return (weights / weights.mean()).to(device())
