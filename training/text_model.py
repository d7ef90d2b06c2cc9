"""The recipe of a text model, the model that it trains, and its texts as batches of token ids."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hub_logging

from service.models.sources import locate
from training.data import DataError, TextData
from training.metrics import HEADLINE

MEGABATCH = 50  # batches that are shuffled together and then sorted by length
LORA, FULL = "lora", "full"
LEARNING_RATES = {LORA: 1e-3, FULL: 5e-5}
AUTO = "auto"
SELECTS = {
    "single_label_classification": ("accuracy", "macro_f1", "macro_recall"),
    "multi_label_classification": ("accuracy", "macro_f1", "micro_f1"),
    "regression": ("mae", "rmse", "pearson", "spearman"),
}
CLASS_WEIGHTS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}  # by name: the power of a label's inverse frequency
FEWEST_STEPS = 300  # of the optimizer; with fewer, a fresh head and adapter stay near chance
FEWEST_EPOCHS, MOST_EPOCHS = 3, 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the trained weights, apart from the data; it goes into the manifest whole.

    ``method`` is ``lora`` or ``full``; ``batch_size`` counts the rows of a step over all processes; ``patience`` is the
    epochs without a better ``select`` figure after which training stops, 0 for never. ``average`` is the share of the steps, the
    last ones, over which the learning rate is held and weights are averaged (Izmailov et al., 2018); 0 for none. ``r_drop`` is
    the weight in the loss of how much two draws of dropout differ in what they say of a row (Liang et al., 2021); 0 for one draw.
    """

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
    average: float = 0.0
    r_drop: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    max_length: int = 128
    precision: str = AUTO
    select: str = AUTO
    seed: int = 0
    method: str = LORA
    patience: int = 0
    calibrate: bool = True

    def checked(self, data: TextData) -> Recipe:
        """The recipe with the figure that picks the best epoch; raises :class:`DataError` for a choice that there is not."""
        chosen = replace(self, select=HEADLINE[data.problem_type]) if self.select == AUTO else self
        for option, value, accepted in (
            ("--method", self.method, (LORA, FULL)),
            ("--select", chosen.select, SELECTS[data.problem_type]),
            ("--precision", self.precision, (AUTO, "fp32", "bf16")),
            ("--class-weights", self.class_weights, ("none",) if data.problem_type == "regression" else CLASS_WEIGHTS),
        ):
            if value not in accepted:
                raise DataError(f"{option} {value}: accepted for this data are {', '.join(accepted)}")
        return chosen

    def resolved(self) -> dict[str, Any]:
        """The recipe with ``auto`` replaced by what this machine uses."""
        return {**asdict(self), "precision": "bf16" if uses_bf16(self.precision) else "fp32", "device": device().type}


def enough_epochs(rows: int, batch_size: int) -> int:
    """How many epochs over so many training rows make enough steps, within bounds."""
    return min(max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / math.ceil(rows / batch_size))), MOST_EPOCHS)


def process() -> PartialState:
    """Where this process stands among those that ``accelerate launch`` has started."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # as the Accelerator does, which may come later


def device() -> torch.device:
    """The device that accelerate gives this process."""
    found: torch.device = process().device
    return found


def uses_bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast: always for ``bf16``, for ``auto`` where the hardware multiplies it."""
    if precision != AUTO:
        return precision == "bf16"
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def build(recipe: Recipe, labels: Sequence[str], problem_type: str) -> tuple[Any, Any]:
    """The base model with a fresh head, and by ``lora`` a fresh adapter, and its tokenizer."""
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
    return (with_lora(model, recipe) if recipe.method == LORA else model).to(device()), tokenizer


def with_lora(model: Any, recipe: Recipe) -> Any:
    """The model, frozen but for its head, with a fresh LoRA adapter."""
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
        return get_peft_model(model, config)


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
