"""The adapters that come with the project: complete, small, equal to PEFT, and as good as their cards say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from service.models.base_weights import load_base
from service.models.sources import locate
from service.models.text_classifier import Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.models.tokenizer import TextTokenizer
from service.store.bundle import read_bundle
from service.store.registry import Registry
from training.data import load_text_data
from training.evaluate import evaluate_text
from training.train_all import ADAPTERS, VQA

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
NAMES = [*ADAPTERS, VQA]
LARGEST = 8_000_000
TEXTS = ["I love how quickly this works", "Oh great, another Monday", "@user what a sad day 🙁 http", "ok"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry.open(ROOT / "adapters", f"sqlite:///{tmp_path_factory.mktemp('registry')}/registry.db")


def test_every_recipe_is_shipped_and_live(registry: Registry) -> None:
    # What git holds, since whoever serves from this folder pushes adapters of their own into it.
    listed = subprocess.run(["git", "ls-files", "adapters"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split("/")[1] for line in listed.stdout.splitlines()} == set(NAMES)
    assert all("live" in registry.get(name).aliases for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_complete_small_and_in_half_precision(registry: Registry, name: str) -> None:
    bundle = registry.store.read(registry.resolve(name))
    assert len(bundle.weights) < LARGEST
    assert {str(tensor.dtype) for tensor in bundle.tensors.values()} == {"torch.float16"}
    assert {"accuracy"} <= set(bundle.manifest.metrics["validation"])
    assert {"seed", "data", "libraries", "duration_seconds"} <= set(bundle.manifest.recipe)
    card = bytes(bundle.files["README.md"]).decode()
    assert all(f"## {part}" in card for part in ("Data", "Metrics", "Recipe", "What it must not be used for"))
    assert not re.search(r"(?<![\w.])/(?:\w+/)+", card), "a path of the machine that trained it"


def test_served_logits_equal_pefts_for_every_shipped_text_adapter(registry: Registry) -> None:
    classifier = TextClassifier(TextEncoder(load_base("minilm"), torch.device("cpu")), max_rank=64)
    ids = TextTokenizer("minilm")(TEXTS)
    rows, expected = [], []
    for name in ADAPTERS:
        ref = registry.resolve(name)
        bundle = registry.store.read(ref)
        loaded = classifier.load(classifier.parse(bundle.config, bundle.tensors, len(bundle.manifest.labels)))
        plain = AutoModelForSequenceClassification.from_pretrained(
            locate("minilm", "TEST"), num_labels=len(bundle.manifest.labels)
        )
        model = PeftModel.from_pretrained(plain, ROOT / "adapters" / ref.name / str(ref.version)).eval()
        with torch.inference_mode():
            expected += [model(torch.tensor([row])).logits[0] for row in ids]
        rows += [Row(row, loaded) for row in ids]
    for ours, theirs in zip(classifier.forward(classifier.collate(rows)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not beside the project; the cards say where they come from")
@pytest.mark.parametrize(("name", "split"), [("irony", "test"), ("emotion", "validation"), ("stance-climate", "test")])
def test_the_figures_of_a_card_are_those_of_the_served_weights(registry: Registry, name: str, split: str) -> None:
    ref = registry.resolve(name)
    bundle = read_bundle(ROOT / "adapters" / ref.name / str(ref.version))
    data = load_text_data(str(DATA / "tweeteval" / ADAPTERS[name].folder))
    served = evaluate_text(bundle, data.splits[split], data.labels, "minilm")
    assert served == pytest.approx(bundle.manifest.metrics[split], abs=0.003)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not beside the project; the bars are about them")
@pytest.mark.parametrize(
    ("name", "split", "figure", "bar"),
    [
        ("sentiment", "validation", "accuracy", 0.688),
        ("sentiment", "validation", "macro_recall", 0.704),
        ("irony", "test", "accuracy", 0.703),
        ("emotion", "validation", "accuracy", 0.70),
        ("offensive", "validation", "accuracy", 0.77),
        ("hate", "validation", "accuracy", 0.73),
    ],
)
def test_the_recorded_figures_reach_what_the_project_asks(
    registry: Registry, name: str, split: str, figure: str, bar: float
) -> None:
    ref = registry.resolve(name)
    assert registry.manifests(registry.get(ref.name))[ref.version].metrics[split][figure] >= bar
