"""Against PEFT, which a user would run instead: the same rows through adapters of the same shapes, in one process."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from loadtest import made_up
from loadtest.bases import SHAPES
from loadtest.bench_forward import Tokens, load_adapters, load_classifier, timed, token_batches
from loadtest.figures import Figure
from loadtest.plan import Bench, Part, zipf
from loadtest.timing import in_turns
from service.models.linear import Dtype
from service.models.text_classifier import Row
from service.models.tokenizer import TextTokenizer

KIND = "query and value"
SWITCHED, MIXED = "set_adapter and a forward for each adapter", "adapter_names"
BARS = {SWITCHED: (10.0, 20.0), MIXED: (2.0, 4.0)}
FP32: Dtype = "fp32"
Inputs = dict[str, torch.Tensor]


class Peft:
    """A model with many adapters as PEFT holds them; in float32, as it comes."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        logging.set_verbosity_error()  # it would say that the head is new
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(made_up.LABELS))
        config = LoraConfig(
            task_type="SEQ_CLS", r=made_up.RANK, lora_alpha=made_up.ALPHA, target_modules=list(made_up.KINDS[KIND])
        )
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it reads a property that transformers renamed
            self._model: Any = get_peft_model(base, config, adapter_name=names[0])
        for name in names[1:]:
            self._model.add_adapter(name, config)
        self._model.eval()

    @torch.inference_mode()
    def switched(self, groups: Sequence[tuple[str, Inputs]]) -> None:
        """``set_adapter`` and a forward for each adapter's rows."""
        for name, inputs in groups:
            self._model.set_adapter(name)
            self._model(**inputs)

    @torch.inference_mode()
    def mixed(self, inputs: Inputs, names: list[str]) -> None:
        """One forward of all rows, each with its own adapter by ``adapter_names``."""
        self._model(**inputs, adapter_names=names)


def peft(bench: Bench) -> Part:
    """Throughput over PEFT's, by shape; ours computes in one dtype, and beside it in float32 as PEFT does."""
    return Part([figure for shape in bench.plan.shapes for figure in _figures(bench, shape, bench.dtype)])


def _figures(bench: Bench, shape: str, dtype: Dtype) -> list[Figure]:
    repeats = _repeats(bench, shape, dtype)
    figures = []
    for way, (bar, stretch) in BARS.items():
        if way in repeats[0]:
            ratios = [took[way] / took[dtype] for took in repeats]
            detail = {f"{name} ms": 1e3 * median(took[name] for took in repeats) for name in (way, *dict.fromkeys((dtype, FP32)))}
            detail["ours in fp32 ×"] = median(took[way] / took[FP32] for took in repeats)
            what = f"{shape} {dtype}, {bench.plan.tenants} adapters: throughput / PEFT's by {way}"
            figures.append(Figure(what, "×", bar, ratios, detail, stretch=stretch, at_least=True))
    return figures


def _repeats(bench: Bench, shape: str, dtype: Dtype) -> list[dict[str, float]]:
    """What each way of PEFT's took, and ours in each dtype, on a batch for each repeat."""
    bench.say(f"PEFT: {shape}, loading {bench.plan.tenants} adapters")
    folder = bench.base(shape)
    names, tokenizer = made_up.names(bench.plan.tenants), TextTokenizer(str(folder))
    theirs, ours = Peft(folder, names), {kind: load_classifier(folder, kind) for kind in dict.fromkeys((dtype, FP32))}
    worn = {kind: load_adapters(classifier, KIND, len(names)) for kind, classifier in ours.items()}
    repeats = []
    for repeat in range(bench.repeats):
        bench.say(f"PEFT: {shape}, repeat {repeat + 1} of {bench.repeats}")
        batch = next(token_batches(bench.texts(repeat), tokenizer, bench.plan.tokens))
        chosen = list(islice(zipf(len(names), Random(repeat)), len(batch)))
        calls: dict[str, Callable[[], object]] = {
            kind: partial(timed, classifier, [Row(ids, worn[kind][place]) for ids, place in zip(batch, chosen, strict=True)])
            for kind, classifier in ours.items()
        }
        calls[SWITCHED] = partial(theirs.switched, grouped(batch, [names[place] for place in chosen]))
        if SHAPES[shape].family == "bert":  # on RoBERTa's head, adapter_names is a TypeError
            calls[MIXED] = partial(theirs.mixed, padded(batch), [names[place] for place in chosen])
        repeats.append(in_turns(calls, bench.plan.rounds))
    return repeats


def grouped(batch: Tokens, names: Sequence[str]) -> list[tuple[str, Inputs]]:
    """The rows of each adapter, padded among themselves."""
    rows: dict[str, list[Sequence[int]]] = defaultdict(list)
    for name, ids in zip(names, batch, strict=True):
        rows[name].append(ids)
    return [(name, padded(group)) for name, group in rows.items()]


def padded(rows: Tokens) -> Inputs:
    """Rows as transformers takes them, padded to the longest."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
