"""How many parameters a recipe trains, from the base model's configuration alone: nothing is loaded or allocated."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from service.models.sources import locate
from training.text_model import Recipe
from training.text_run import LORA, count_parameters


def parameter_counts(recipe: Recipe, label_count: int) -> tuple[int, int]:
    """Trained and total parameters of the model that ``recipe`` builds, with a head for so many labels.

    Raises :class:`StartupError` for a base model that cannot be found, and ``ValueError`` for target modules it does not have.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(locate(recipe.base_model, "--base-model"), num_labels=label_count)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # peft asks transformers by an old name
        model = AutoModelForSequenceClassification.from_config(config)
        if recipe.method != LORA:
            return count_parameters(model)
        targets: Any = recipe.target_modules if recipe.target_modules == "all-linear" else recipe.target_modules.split(",")
        return count_parameters(get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=recipe.r, target_modules=targets)))
