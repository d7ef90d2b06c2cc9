"""What a trained variant costs to serve here: adapters by the server's own task, full models by transformers, both in float32."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from service.store.alias import Target
from service.store.bundle import read_bundle
from service.store.registry import Registry
from service.tasks.standalone import text_task
from service.tasks.text_classification import TextRequest

SINGLES, BATCHES, BATCH, WARM_UP = 60, 6, 32, 5
Answer = Callable[[Sequence[str]], object]


@dataclass(frozen=True, slots=True)
class Cost:
    """The median milliseconds that one text alone takes, and texts a second in batches of 32, from text to label."""

    p50_ms: float
    texts_per_second: float


def adapter_costs(base_model: str, folders: Mapping[str, Path], texts: Sequence[str]) -> dict[str, Cost]:
    """The cost of each bundle by its name; all are served by one base model, as the server does."""
    with tempfile.TemporaryDirectory() as place:
        registry = Registry.open(Path(place))
        task = text_task(base_model, registry)

        def through(adapter: str) -> Answer:
            return lambda rows: task.forward(task.collate(task.prepare(TextRequest(rows, [adapter]))))

        found = {}
        for number, (name, folder) in enumerate(folders.items()):
            adapter = f"adapter-{number}"
            registry.set_alias(adapter, "live", Target.at(registry.publish(adapter, read_bundle(folder))[0].version))
            found[name] = measure(through(adapter), texts)
        return found


def full_cost(folder: Path, texts: Sequence[str], max_length: int) -> Cost:
    """The cost of a fully fine-tuned model, loaded from its folder by transformers; batches are padded to their longest text."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def answer(rows: Sequence[str]) -> object:
        inputs = tokenizer(list(rows), truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        return model(**inputs).logits.softmax(-1).tolist()

    return measure(answer, texts)


def measure(answer: Answer, texts: Sequence[str]) -> Cost:
    """Time ``answer`` on single texts and on batches, after a few that are not counted; batches hold texts of like length."""
    repeated = [texts[i % len(texts)] for i in range(BATCH * BATCHES)]
    batches = [sorted(repeated, key=len)[start : start + BATCH] for start in range(0, len(repeated), BATCH)]
    for text in repeated[:WARM_UP]:
        answer([text])
    answer(batches[0])
    singles = [_seconds(answer, [text]) for text in repeated[:SINGLES]]
    in_batches = sum(_seconds(answer, batch) for batch in batches)
    return Cost(round(1000 * statistics.median(singles), 3), round(len(repeated) / in_batches, 1))


def _seconds(answer: Answer, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    answer(texts)
    return time.perf_counter() - began
