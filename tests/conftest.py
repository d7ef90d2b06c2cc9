"""What every test may use: tiny real models and a running server, made once for the whole run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client: no test reaches for a network
os.environ.pop("COLUMNS", None)  # pytest's worker processes have it, and a console that is made meanwhile keeps that width

from tests.support.bundles import save_tiny_base, text_bundle, vqa_bundle
from tests.support.images import card_images

if TYPE_CHECKING:
    from service.models.image_encoder import ImageEncoder
    from service.models.sentence_encoder import SentenceEncoder
    from service.store.bundle import Bundle
    from tests.soak.recognisable import Maker
    from tests.support.postgres import Postgres
    from tests.support.server import Server

    Towers = tuple[ImageEncoder, SentenceEncoder]
    Start = Callable[..., Server]


# Modules that take a minute or more: they come first, so that no process is left alone with one at the end.
LONGEST = (
    "test_bench.py", "test_training_jobs.py", "test_train_text_adapter.py", "test_training_server.py", "test_study.py",
    "test_soak.py", "test_registry.py", "test_schema.py", "test_kills.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; the others keep their order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seeded tiny BERT and the packaged tokenizer."""
    return save_tiny_base(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seeded tiny RoBERTa and the packaged tokenizer."""
    return save_tiny_base(tmp_path_factory.mktemp("tiny-roberta"), "roberta")


@pytest.fixture(scope="session")
def towers() -> Towers:
    """The packaged image and sentence encoders."""
    from service.models.image_encoder import load_image_encoder
    from service.models.sentence_encoder import load_sentence_encoder

    cpu = torch.device("cpu")
    return load_image_encoder("tf_efficientnet_lite0", cpu), load_sentence_encoder("minilm", cpu)


@pytest.fixture(scope="session")
def bundles(tiny_base: Path, towers: Towers) -> dict[str, Bundle]:
    """Adapters of different ranks, target modules and label counts; ``irony-2`` is irony's second version, with images."""
    return {
        "sentiment": text_bundle(tiny_base, ["negative", "neutral", "positive"], seed=1),
        "emotion": text_bundle(tiny_base, ["anger", "joy", "optimism", "sadness"], seed=2, r=8, target_modules="all-linear"),
        "irony": text_bundle(tiny_base, ["literal", "ironic"], seed=3, r=1),
        "irony-2": text_bundle(tiny_base, ["literal", "ironic"], seed=4, r=2, images=card_images()),
        "short": text_bundle(tiny_base, ["no", "yes"], seed=5, max_length=8),
        "vqa": vqa_bundle(*towers, [f"answer {i}" for i in range(12)]),
    }


@pytest.fixture(scope="session")
def maker(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes adapters whose answers tell which version gave them."""
    from tests.soak.recognisable import Maker

    return Maker(tiny_base, tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server of the run's own."""
    from tests.support.postgres import Postgres

    with Postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="session")
def server(tiny_base: Path, bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that change nothing; irony has version 1 (canary), 2 (live) and a deleted version 3."""
    from tests.support.server import Server

    with Server(tiny_base, tmp_path_factory.mktemp("adapters")) as running:
        for name in ("sentiment", "emotion", "short", "vqa"):
            assert running.publish(name, bundles[name]).status_code == 201
        assert running.publish("irony", bundles["irony"], "canary").json()["version"] == 1
        assert running.publish("irony", bundles["irony-2"], "live").json()["version"] == 2
        assert running.publish("irony", bundles["emotion"], None).json()["version"] == 3
        assert running.client.delete("/v1/adapters/irony/versions/3").status_code == 204
        yield running
    assert running.errors.lines == []


@pytest.fixture
def start(tiny_base: Path, tmp_path: Path) -> Iterator[Start]:
    """Start further servers, each with settings of its own, on one folder of adapters; all stop with the test."""
    from tests.support.server import Server

    with ExitStack() as stack:

        def run(**settings: Any) -> Server:
            return stack.enter_context(Server(tiny_base, tmp_path / "adapters", **settings))

        yield run
