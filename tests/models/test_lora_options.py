"""Each option of PEFT's LoRA is known to be harmless, honoured or refused, and none is forgotten."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

import pytest
from peft import LoraConfig

from service.models.lora_options import HARMLESS, HONOURED, REFUSED, Ranks, option_faults

PEFT = {field.name for field in fields(LoraConfig)}
OURS = {"id2label", "label2id", "num_labels", "problem_type"}  # what transformers' configurations call labels


def config(**changes: Any) -> dict[str, Any]:
    return {"peft_type": "LORA", "task_type": "SEQ_CLS", **changes}


def ranks(**changes: Any) -> Ranks:
    return Ranks(config(**changes), max_rank=16)


def test_every_option_of_peft_is_decided_on_once() -> None:
    assert HONOURED | HARMLESS | set(REFUSED) == PEFT | OURS
    assert len(HONOURED) + len(HARMLESS) + len(REFUSED) == len(PEFT | OURS)


def test_what_peft_writes_by_default_is_accepted() -> None:
    written = {**LoraConfig(task_type="SEQ_CLS").to_dict(), "target_modules": ["query"]}
    assert set(REFUSED) <= set(written) and option_faults(written) == []


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_an_option_that_would_change_answers_is_named(option: str) -> None:
    fault = f"option {option} ({REFUSED[option]}) is {{'a': 1}}; it is not supported: leave it out"
    assert option_faults(config(**{option: {"a": 1}})) == [fault]
    assert option_faults(config(**{option: None})) == []


@pytest.mark.parametrize("option", sorted(HARMLESS))
def test_an_option_without_effect_is_let_be(option: str) -> None:
    assert option_faults(config(**{option: {"a": 1}})) == []


@pytest.mark.parametrize("made", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", ["gaussian"], "PISSA"])
def test_an_initialisation_that_changes_the_base_model_is_named(made: Any) -> None:
    (fault,) = option_faults(config(init_lora_weights=made))
    assert fault == f"init_lora_weights {made!r} changes the base model, which all adapters share"


@pytest.mark.parametrize("made", [True, False, None, "gaussian", "eva", "mica", "orthogonal"])
def test_one_that_leaves_it_alone_is_accepted(made: Any) -> None:
    assert option_faults(config(init_lora_weights=made)) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"bias": "all"}, "bias 'all' is not supported; expected 'none'"),
        ({"bias": "lora_only"}, "bias 'lora_only' is not supported; expected 'none'"),
        ({"bias": None}, "bias None is not supported; expected 'none'"),
        ({"use_rslora": "no"}, "use_rslora 'no' is not supported; expected true or false"),
        ({"peft_type": None}, "peft_type None is not supported; expected 'LORA'"),
        ({"task_type": "TOKEN_CLS"}, "task_type 'TOKEN_CLS' is not supported; expected 'SEQ_CLS'"),
        ({"target_modules": [1]}, "target_modules [1] is not supported; expected a list of module names"),
        ({"modules_to_save": "classifier"}, "modules_to_save 'classifier' is not supported; expected a list of module names"),
        (
            {"modules_to_save": ["classifier", "word_embeddings"]},
            "modules_to_save has 'word_embeddings'; accepted: parts of a head (classifier, pooler, score)",
        ),
        ({"tomorrow\n's": 1}, "option tomorrow\\n's is 1; it is not supported: leave it out"),
        ({"use_dora": "x" * 10_000}, f"is {'x' * 10_000!r:.38}...{'x' * 38}'; it is not supported"),
    ],
)
def test_a_value_that_is_not_honoured_is_named(changes: dict[str, Any], fault: str) -> None:
    (found,) = option_faults(config(**changes))
    assert fault in found and len(found) < 300


@pytest.mark.parametrize("parts", [["classifier", "score"], ["bert.pooler"], ["classifier.out_proj"], [], None])
def test_parts_of_the_head_may_be_saved(parts: Any) -> None:
    assert option_faults(config(modules_to_save=parts)) == []


def test_scaling_follows_peft() -> None:
    assert ranks(r=4, lora_alpha=8).of("a.query") == (4, 2.0)
    assert ranks(r=4, lora_alpha=8, use_rslora=True).of("a.query") == (4, 4.0)
    assert ranks().of("a.query") == (8, 1.0)
    by_name = ranks(r=4, rank_pattern={"^a.query": 2, "key": 3}, alpha_pattern={r"a\.query": 1})
    assert [by_name.of(name) for name in ("a.query", "b.key", "b.monkey")] == [(2, 0.5), (3, 8 / 3), (4, 2.0)]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"r": 17}, "r 17 is not a rank; this server accepts 1 to 16"),
        ({"r": 0}, "r 0 is not a rank"),
        ({"r": -1}, "r -1 is not a rank"),
        ({"r": True}, "r True is not a rank"),
        ({"r": 8.0}, "r 8.0 is not a rank"),
        ({"r": [8]}, "r [8] is not a rank"),
        ({"rank_pattern": {"query": None}}, "r None is not a rank"),
        ({"lora_alpha": "8"}, "lora_alpha '8' is not accepted; expected a number"),
        ({"lora_alpha": True}, "lora_alpha True is not accepted; expected a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan is not accepted"),
        ({"alpha_pattern": {"query": float("inf")}}, "lora_alpha inf is not accepted"),
        ({"rank_pattern": [1]}, "rank_pattern is not an object of at most 1000 module names and numbers"),
        ({"rank_pattern": {f"m{i}": 1 for i in range(1001)}}, "rank_pattern is not an object of at most 1000"),
        ({"alpha_pattern": {"\\8": 4}}, "alpha_pattern has the key '\\\\8'; module names are accepted"),
    ],
)
def test_a_rank_or_scaling_that_is_none_is_named_once(changes: dict[str, Any], fault: str) -> None:
    told = ranks(**changes)
    for module in ("a.query", "b.query"):
        told.of(module)
    assert len(told.faults) == 1 and told.faults[0].startswith(fault)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(|.)" * 45, "(a|a)" * 40, "[a-z]" * 40, ".{99}", "a" * 201, ""])
def test_a_pattern_that_could_match_for_ever_is_named(pattern: str) -> None:
    began = time.monotonic()
    told = ranks(rank_pattern={pattern: 4})
    assert told.of("bert.encoder.layer.11.attention.self.query") == (8, 1.0)
    assert time.monotonic() - began < 1
    assert len(told.faults) == 1 and told.faults[0].startswith("rank_pattern has the key ")
