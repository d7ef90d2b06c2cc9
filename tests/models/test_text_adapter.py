"""A broken or foreign adapter is refused with every fault at once, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from service.errors import AdapterIncompatible
from service.models.base_weights import load_base
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder
from tests.support.bundles import peft_adapter

Config: TypeAlias = dict[str, Any]
Tensors: TypeAlias = dict[str, Tensor]
QUERY_A = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
POOLER = "base_model.model.bert.pooler.dense"
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
    "an option that changes answers": (lambda c, _: c.update(use_dora=True), "use_dora"),
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
    "infinite alpha": (lambda c, _: c.update(lora_alpha=float("inf")), "lora_alpha inf"),
    "a pattern that could match for ever": (lambda c, _: c.update(rank_pattern={"(a+)+$": 4}), "rank_pattern has the key"),
    "no head": (lambda _, t: t.pop("base_model.model.classifier.weight"), "no tensor base_model.model.classifier.weight"),
    "LoRA on what has its own weights": (
        lambda _, t: t.update(
            {
                f"{POOLER}.weight": torch.ones(32, 32),
                f"{POOLER}.bias": torch.ones(32),
                f"{POOLER}.lora_A.weight": torch.ones(4, 32),
            }
        ),
        f"{POOLER}.lora_A.weight belongs to nothing",
    ),
    "a number that is no size": (
        lambda _, t: t.update({QUERY_A: torch.tensor(1.0)}),
        f"{QUERY_A} has shape (); expected (*, 32)",
    ),
    "truth values": (
        lambda _, t: t.update({QUERY_A: torch.ones(4, 32, dtype=torch.bool)}),
        "holds bool; expected a floating-point",
    ),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_fault_is_named(classifier: TextClassifier, adapter: tuple[Config, Tensors], kind: str) -> None:
    config, tensors = adapter
    tamper, expected = TAMPERED[kind]
    tamper(config, tensors)
    assert expected in faults(classifier, config, tensors)


def test_every_fault_is_listed_at_once(classifier: TextClassifier, adapter: tuple[Config, Tensors]) -> None:
    config, tensors = adapter
    config.update(use_dora=True, bias="all", r=99)
    tensors.pop(QUERY_B)
    tensors["base_model.model.classifier.weight"] = torch.full((3, 31), float("inf"))
    listed = faults(classifier, config, tensors)
    expected = (
        "use_dora", "bias", "r 99", QUERY_B, "classifier.weight has shape (3, 31)", "classifier.weight holds a value that is not",
    )  # fmt: skip
    assert all(part in listed for part in expected)


def test_a_module_that_the_configuration_names_must_be_there(classifier: TextClassifier, adapter: tuple[Config, Tensors]) -> None:
    config, tensors = adapter
    for name in (QUERY_A, QUERY_B):
        del tensors[name]
    assert faults(classifier, config, tensors) == f"no tensor {QUERY_A}\nno tensor {QUERY_B}"
    assert len(classifier.parse({**config, "layers_to_transform": [1]}, tensors, 3).factors) == 3


FIRST = "bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ".*query"},
        {"target_modules": ["dense"], "modules_to_save": ["pooler"]},
        {"target_modules": ["query"], "exclude_modules": [FIRST]},
        {"target_modules": ["query"], "layers_to_transform": [1]},
    ],
)
def test_however_peft_is_told_what_to_change_its_adapter_is_taken(
    classifier: TextClassifier, tiny_base: Path, options: dict[str, Any]
) -> None:
    assert classifier.parse(*peft_adapter(tiny_base, 3, seed=0, r=2, **options), 3).factors


def test_a_head_for_other_labels_is_refused(classifier: TextClassifier, adapter: tuple[Config, Tensors]) -> None:
    assert "expected (4, 32)" in faults(classifier, *adapter, labels=4)


def test_a_rank_over_the_limit_is_refused(classifier: TextClassifier, tiny_base: Path) -> None:
    assert "accepts 1 to 16" in faults(classifier, *peft_adapter(tiny_base, 3, seed=0, r=32, target_modules=["query"]))
