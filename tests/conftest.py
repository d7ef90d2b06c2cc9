"""What every test may use: tiny real models, made once for the whole run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client: no test reaches for a network

from tests.support.bundles import save_tiny_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seeded tiny BERT and the packaged tokenizer."""
    return save_tiny_base(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seeded tiny RoBERTa and the packaged tokenizer."""
    return save_tiny_base(tmp_path_factory.mktemp("tiny-roberta"), "roberta")
