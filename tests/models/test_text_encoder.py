"""The packed encoder at the true shapes of the mission's base models, and what a missing one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

from service.models.base_weights import BaseWeights, load_base
from service.models.lora import NO_RUNS
from service.models.packed import rounded_up
from service.models.text_classifier import Row, TextClassifier
from service.models.text_encoder import TextEncoder

TINYBERT = {"hidden_size": 312, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 1200}
SHAPES: dict[str, tuple[Any, str, int, int]] = {
    "roberta-base": (
        RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=3),
        "roberta",
        124_647_939,
        887_811,
    ),
    "TinyBERT": (BertConfig(**TINYBERT, num_labels=3), "bert", 14_351_187, 40_875),
}


@pytest.mark.parametrize("name", SHAPES)
def test_true_shapes_equal_peft_and_have_the_known_parameter_counts(name: str) -> None:
    config, prefix, total, trainable = SHAPES[name]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    assert model.num_parameters() == total
    base = BaseWeights(config, getattr(model, prefix).state_dict(), "seeded")
    classifier = TextClassifier(TextEncoder(base, torch.device("cpu")), max_rank=8)
    tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])).eval()
    assert tuned.get_nb_trainable_parameters()[0] == trainable
    for key, value in tuned.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(value, std=0.05)
    tensors = {key: value.detach().clone() for key, value in get_peft_model_state_dict(tuned).items()}
    described = tuned.peft_config["default"].to_dict() | {"target_modules": ["query", "value"]}  # a set, as PEFT keeps it
    loaded = classifier.load(classifier.parse(described, tensors, 3))
    rows = [[7, 8, 9, 10, 11], [12, 13], list(range(100, 130))]
    for ids, logits in zip(rows, classifier.forward(classifier.collate([Row(ids, loaded) for ids in rows])), strict=True):
        with torch.inference_mode():
            torch.testing.assert_close(logits, tuned(torch.tensor([ids])).logits[0], atol=1e-5, rtol=0)


def test_bfloat16_differs_from_float32_by_its_rounding_alone(tiny_base: Path) -> None:
    base, rows = load_base(str(tiny_base)), [[5, 6, 7], list(range(5, 45)), [9]]
    exact, rounded = (TextEncoder(base, torch.device("cpu"), dtype) for dtype in ("fp32", "bf16"))
    expected, found = (encoder.forward(encoder.pack(rows), NO_RUNS) for encoder in (exact, rounded))
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)  # states are normalised; bfloat16 keeps 8 bits


@given(st.integers(1, 40_000))
def test_sizes_are_few_and_little_larger_than_needed(count: int) -> None:
    size = rounded_up(count)
    assert size % 8 == 0 and count <= size < count + max(8, count / 31)
    assert rounded_up(size) == size
    assert len({rounded_up(smaller) for smaller in range(1, 2049)}) < 150


@pytest.mark.parametrize("lengths", [[1], [8], [7, 7], [5, 40, 1], [9] * 8, [3] * 9])
def test_states_of_any_number_of_rows_and_tokens_equal_those_of_each_row_alone(tiny_base: Path, lengths: list[int]) -> None:
    encoder = TextEncoder(load_base(str(tiny_base)), torch.device("cpu"))
    rows = [[5 + place + number for number in range(length)] for place, length in enumerate(lengths)]
    packed = encoder.pack(rows)
    alone = [encoder.pack([row]) for row in rows]
    states, first = encoder.states(packed), encoder.forward(packed, NO_RUNS)
    assert states.shape == (sum(lengths), encoder.hidden) and first.shape == (len(rows), encoder.hidden)
    torch.testing.assert_close(states, torch.cat([encoder.states(one) for one in alone]), atol=1e-5, rtol=0)
    torch.testing.assert_close(first, torch.cat([encoder.forward(one, NO_RUNS) for one in alone]), atol=1e-5, rtol=0)
