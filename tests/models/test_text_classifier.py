"""Rows of any mix of adapters give what PEFT gives for each alone."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from service.models import encoder_kernel
from service.models.base_weights import load_base
from service.models.linear import Dtype, computes_in
from service.models.lora import LoadedFactors
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import LoadedTextAdapter, Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.store.bundle import read_bundle
from tests.support.bundles import make_text_bundle

CPU = torch.device("cpu")
TOLERANCE = 1e-5
SPECS: dict[str, dict[str, Any]] = {
    "rank 1, query and value": {"r": 1, "target_modules": ["query", "value"]},
    "rank 8, all linear": {"r": 8, "target_modules": "all-linear"},
    "rank 16, rsLoRA, keys": {"r": 16, "use_rslora": True, "target_modules": ["key", "attention.output.dense"]},
    "rank 64, all linear": {"r": 64, "lora_alpha": 3, "target_modules": "all-linear"},
    "patterns": {
        "r": 4,
        "target_modules": "all-linear",
        "rank_pattern": {"query": 16, "layer.1.attention.self.value": 2},
        "alpha_pattern": {"key": 32, "0.intermediate.dense": 1},
    },
    "no bias to a layer": {"r": 2, "target_modules": ["intermediate.dense"], "layers_to_transform": [1]},
}
BERT_ONLY: dict[str, dict[str, Any]] = {
    "own pooler": {"r": 4, "target_modules": ["query"], "modules_to_save": ["pooler", "classifier"]}
}


@dataclass(frozen=True)
class World:
    """A base model under our engine and under transformers, with the same adapters loaded in both."""

    base: Path
    classifier: TextClassifier
    parsed: list[TextAdapter]
    adapters: list[LoadedTextAdapter]
    bare: Any
    peft: list[PeftModel]
    label_counts: list[int]

    def expected(self, ids: Sequence[int], which: int | None) -> Tensor:
        with torch.inference_mode():
            inputs = torch.tensor([list(ids)])
            if which is None:
                state: Tensor = self.bare(inputs).last_hidden_state[0, 0]
                return state
            logits: Tensor = self.peft[which](inputs).logits[0]
            return logits

    def row(self, ids: Sequence[int], which: int | None) -> Row:
        return Row(ids, None if which is None else self.adapters[which])

    def forward(self, rows: Sequence[Row]) -> list[Tensor]:
        return self.classifier.forward(self.classifier.collate(rows))


@pytest.fixture(scope="module", params=["bert", "roberta"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    base: Path = request.getfixturevalue("tiny_base" if request.param == "bert" else "tiny_roberta")
    specs = [*SPECS.values(), *(BERT_ONLY.values() if request.param == "bert" else ())]
    classifier = TextClassifier(TextEncoder(load_base(str(base)), CPU), max_rank=64)
    parsed, models, counts = [], [], []
    for number, spec in enumerate(specs):
        count = 2 + number
        folder = make_text_bundle(
            base, tmp_path_factory.mktemp("adapter"), [f"l{i}" for i in range(count)], seed=number, scale=0.1, **spec
        )
        bundle = read_bundle(folder)
        parsed.append(classifier.parse(bundle.config, bundle.tensors, count))
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=count)
        models.append(PeftModel.from_pretrained(plain, folder).eval())
        counts.append(count)
    return World(
        base,
        classifier,
        parsed,
        [classifier.load(adapter) for adapter in parsed],
        AutoModel.from_pretrained(base).eval(),
        models,
        counts,
    )


def test_one_forward_over_every_kind_of_adapter_equals_peft(world: World) -> None:
    kinds = [None, *range(len(world.adapters))]
    rows = [
        (list(range(5, 5 + length)), which) for length, which in zip((3, 17, 1, 40, 9, 2, 25, 64, 8, 30), kinds * 2, strict=False)
    ]
    outputs = world.forward([world.row(ids, which) for ids, which in rows])
    for (ids, which), output in zip(rows, outputs, strict=True):
        torch.testing.assert_close(output, world.expected(ids, which), atol=TOLERANCE, rtol=0)
        assert which is None or output.shape == (world.label_counts[which],)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mix_order_and_split_equals_one_by_one(world: World, data: st.DataObject) -> None:
    kinds = st.one_of(st.none(), st.integers(0, len(world.adapters) - 1))
    ids = st.lists(st.integers(5, 30000), min_size=1, max_size=40)
    rows = data.draw(st.lists(st.tuples(ids, kinds), min_size=1, max_size=12))
    split = data.draw(st.integers(0, len(rows)))
    made = [world.row(ids, which) for ids, which in rows]
    alone = [world.forward([row])[0] for row in made]
    together = [output for part in (made[:split], made[split:]) if part for output in world.forward(part)]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


# How far logits may be from float32.
LOWER: dict[Dtype, float] = {"bf16": 0.06, "int8": 0.15}
# And from those of a row alone: where the steps run one by one, a number that is rounded the other way moves what follows.
FROM_ALONE = TOLERANCE if encoder_kernel.available else 0.1


@pytest.fixture(scope="module", params=[dtype for dtype in LOWER if computes_in(dtype, CPU)])
def lower(request: pytest.FixtureRequest, world: World) -> World:
    """The same adapters on the same base model in a lower precision."""
    classifier = TextClassifier(TextEncoder(load_base(str(world.base)), CPU, request.param), max_rank=64)
    return replace(world, classifier=classifier, adapters=[classifier.load(adapter) for adapter in world.parsed])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_in_a_lower_precision_any_mix_stays_within_its_bounds(world: World, lower: World, data: st.DataObject) -> None:
    from_exact = LOWER[lower.classifier.encoder.dtype]
    kinds = st.one_of(st.none(), st.integers(0, len(world.adapters) - 1))
    ids = st.lists(st.integers(5, 30000), min_size=1, max_size=40)
    rows = data.draw(st.lists(st.tuples(ids, kinds), min_size=1, max_size=12))
    exact, together = (which.forward([which.row(*row) for row in rows]) for which in (world, lower))
    for row, one, other in zip(rows, exact, together, strict=True):
        scale = 1 if row[1] is not None else float(one.abs().max())
        torch.testing.assert_close(other, one, atol=from_exact * scale, rtol=0)
        torch.testing.assert_close(lower.forward([lower.row(*row)])[0], other, atol=FROM_ALONE * scale, rtol=0)


def test_a_version_loaded_during_traffic_changes_no_other_rows(world: World, tmp_path: Path) -> None:
    row = world.row([7, 8, 9], 1)
    before = world.forward([row])[0]
    bundle = read_bundle(make_text_bundle(world.base, tmp_path, ["a", "b"], seed=99, scale=0.1, r=8, target_modules="all-linear"))
    parsed = world.classifier.parse(bundle.config, bundle.tensors, 2)
    loaded = [world.classifier.load(parsed) for _ in range(40)]
    torch.testing.assert_close(world.forward([row])[0], before, atol=0, rtol=0)
    first = world.forward([world.row([7, 8], None), Row([7, 8], loaded[0])])[1]
    torch.testing.assert_close(world.forward([Row([7, 8], loaded[39])])[0], first, atol=TOLERANCE, rtol=0)


def test_memory_is_freed_with_the_last_reference(world: World) -> None:
    loaded = world.classifier.load(world.parsed[1])
    assert isinstance(loaded.factors, LoadedFactors)
    values = weakref.ref(loaded.factors.memory)
    batch = world.classifier.collate([Row([7, 8], loaded)])
    del loaded
    assert values() is not None and len(world.classifier.forward(batch)) == 1
    del batch
    assert values() is None
