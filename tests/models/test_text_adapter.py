"""A broken or foreign adapter is refused with every fault at once, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from service.errors import AdapterIncompatible
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder, load_base
from tests.support.bundles import peft_adapter

Config: TypeAlias = dict[str, Any]
Tensors: TypeAlias = dict[str, Tensor]
QUERY_A = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
QUERY_B = QUERY_A.replace("lora_A", "lora_B")


@pytest.fixture(scope="module")
def classifier(tiny_base: Path) -> TextClassifier:
    return TextClassifier(TextEncoder(load_base(str(tiny_base)), torch.device("cpu")), max_rank=16)


@pytest.fixture
def adapter(tiny_base: Path) -> tuple[Config, Tensors]:
    return peft_adapter(tiny_base, 3, seed=0, r=4, target_modules=["query", "value"])


def faults(classifier: TextClassifier, config: Config, tensors: Tensors, labels: int = 3) -> str:
    with pytest.raises(AdapterIncompatible) as refused:
        classifier.parse(config, tensors, labels)
    return "\n".join(refused.value.faults)


def test_a_sound_adapter_is_taken(classifier: TextClassifier, adapter: tuple[Config, Tensors]) -> None:
    parsed = classifier.parse(*adapter, 3)
    assert len(parsed.factors) == 4
    assert parsed.head.out[0].shape == (3, 32)


TAMPERED: dict[str, tuple[Callable[[Config, Tensors], object], str]] = {
    "DoRA": (lambda c, _: c.update(use_dora=True), "use_dora"),
    "bias": (lambda c, _: c.update(bias="all"), "bias 'all'"),
    "another method": (lambda c, _: c.update(peft_type="IA3"), "peft_type 'IA3'"),
    "an initialisation that changes the base": (lambda c, _: c.update(init_lora_weights="pissa"), "init_lora_weights 'pissa'"),
    "an option of the future": (lambda c, _: c.update(use_novelty=True), "use_novelty"),
    "another task": (lambda c, _: c.update(task_type="CAUSAL_LM"), "task_type 'CAUSAL_LM'"),
    "unused tensor": (
        lambda _, t: t.update({"base_model.model.extra": torch.ones(1)}),
        "base_model.model.extra belongs to nothing",
    ),
    "lora_A alone": (lambda _, t: t.pop(QUERY_B), f"no tensor {QUERY_B}"),
    "wrong shape": (lambda _, t: t.update({QUERY_A: torch.ones(4, 31)}), f"{QUERY_A} has shape (4, 31)"),
    "not a number": (lambda _, t: t[QUERY_A].__setitem__((0, 0), float("nan")), f"{QUERY_A} holds a value that is not finite"),
    "integers": (lambda _, t: t.update({QUERY_A: torch.ones(4, 32, dtype=torch.int8)}), "int8"),
    "another rank than it says": (lambda c, _: c.update(r=8), "the configuration says 8"),
    "a rank that is no number": (lambda c, _: c.update(r="8"), "r '8'"),
    "rank 0": (lambda c, _: c.update(r=0), "r 0"),
    "infinite alpha": (lambda c, _: c.update(lora_alpha=float("inf")), "lora_alpha inf"),
    "no head": (lambda _, t: t.pop("base_model.model.classifier.weight"), "no tensor base_model.model.classifier.weight"),
    "a pattern that could match for ever": (lambda c, _: c.update(rank_pattern={"(a+)+$": 4}), "rank_pattern has the key"),
    "a pattern that is none": (lambda c, _: c.update(alpha_pattern={"(": 4}), "alpha_pattern has the key"),
    "patterns that are a list": (lambda c, _: c.update(alpha_pattern=[1]), "alpha_pattern is not an object"),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_fault_is_named(classifier: TextClassifier, adapter: tuple[Config, Tensors], kind: str) -> None:
    config, tensors = adapter
    tamper, expected = TAMPERED[kind]
    tamper(config, tensors)
    assert expected in faults(classifier, config, tensors)


def test_every_fault_is_listed_at_once(classifier: TextClassifier, adapter: tuple[Config, Tensors]) -> None:
    config, tensors = adapter
    config.update(use_dora=True, bias="all")
    tensors.pop(QUERY_B)
    tensors["base_model.model.classifier.weight"] = torch.full((3, 32), float("inf"))
    listed = faults(classifier, config, tensors)
    assert all(part in listed for part in ("use_dora", "bias", QUERY_B, "classifier.weight holds"))


def test_a_head_for_other_labels_is_refused(classifier: TextClassifier, adapter: tuple[Config, Tensors]) -> None:
    assert "expected (4, 32)" in faults(classifier, *adapter, labels=4)


def test_a_rank_over_the_limit_is_refused(classifier: TextClassifier, tiny_base: Path) -> None:
    assert "accepts 1 to 16" in faults(classifier, *peft_adapter(tiny_base, 3, seed=0, r=32, target_modules=["query"]))
