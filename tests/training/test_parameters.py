"""Parameter counts of base models at their true shapes, as published."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertConfig, PreTrainedConfig, RobertaConfig

from training.parameters import parameter_counts
from training.text_model import Recipe

ROBERTA = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
TINYBERT = BertConfig(hidden_size=312, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1200)


@pytest.mark.parametrize(("config", "full", "lora"), [(ROBERTA, 124_647_939, 887_811), (TINYBERT, 14_351_187, 40_875)])
def test_counts_are_the_known_ones(config: PreTrainedConfig, full: int, lora: int, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    recipe = Recipe(base_model=str(tmp_path), method="full", r=8, target_modules="query,value")
    assert parameter_counts(recipe, 3) == (full, full)
    adapter = Recipe(base_model=str(tmp_path), method="lora", r=8, target_modules="query,value")
    trainable, total = parameter_counts(adapter, 3)
    head = {312: 312 * 3 + 3, 768: 768 * 768 + 768 + 768 * 3 + 3}[config.hidden_size]
    assert (trainable, total) == (lora, full + lora - head)
