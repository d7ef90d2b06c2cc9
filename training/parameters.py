"""How many parameters a recipe trains, from the base model's configuration alone: nothing is loaded or allocated."""

from __future__ import annotations

from typing import Any

import torch

from service.models.sources import locate
from training.text_model import LORA, Recipe, with_lora


def parameter_counts(recipe: Recipe, label_count: int) -> tuple[int, int]:
    """Trained and total parameters of the model that ``recipe`` builds, with a head for so many labels.

    Raises :class:`StartupError` for a base model that cannot be found, and ``ValueError`` for target modules it does not have.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(locate(recipe.base_model, "--base-model"), num_labels=label_count)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
        model = with_lora(model, recipe) if recipe.method == LORA else model
    return count_parameters(model)


def count_parameters(model: Any) -> tuple[int, int]:
    """How many parameters are trained, and how many there are; the frozen original of a trained head is not counted."""
    named = [p for name, p in model.named_parameters() if ".original_module." not in name]
    return sum(p.numel() for p in named if p.requires_grad), sum(p.numel() for p in named)
