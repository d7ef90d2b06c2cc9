"""Merged adapters: what the methods promise, that server and PEFT agree on them, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.models.base_weights import load_base
from service.models.lora import Factors
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder
from service.store.alias import Target
from service.store.bundle import Bundle, read_bundle
from service.store.registry import Registry
from service.tasks.standalone import CPU
from tests.support.bundles import ALL_LINEAR, make_text_bundle, save_tiny_base, text_bundle
from tests.support.checkpoints import sentences
from tests.support.command import script
from training import merge
from training.bundles import write_bundle
from training.data import DataError
from training.merging import METHODS, Plan, Source, check_plan, check_source, merge_heads, merge_lora, usual_weights
from training.text_measure import text_logits

LABELS = ("no", "yes")
TEXTS = sentences(12, seed=4)


run = partial(script, merge.main)


def delta(pair: Factors) -> Tensor:
    return pair.scaling * pair.b.float().T @ pair.a.float()


def merged(base: Path, sources: list[Source], method: str, weights: tuple[float, ...], seed: int = 0) -> dict[str, Tensor]:
    plan = Plan(method, weights, 0.5, None, seed)
    check_plan(plan, sources)
    changes = merge_lora(load_base(str(base)), str(base), sources, plan)
    return {module: delta(change.factors(change.rank)) for module, change in changes.items()}


@pytest.fixture(scope="module", params=["bert", "roberta"])
def base(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue("tiny_base" if request.param == "bert" else "tiny_roberta")
    return found


@pytest.fixture(scope="module")
def classifier(base: Path) -> TextClassifier:
    return TextClassifier(TextEncoder(load_base(str(base)), CPU), 64)


@pytest.fixture(scope="module")
def sources(base: Path, classifier: TextClassifier) -> list[Source]:
    options = ({"r": 4, "target_modules": ALL_LINEAR}, {"r": 4, "lora_alpha": 2, "max_length": 32}, {"r": 6, "use_rslora": True})
    bundles = [text_bundle(base, LABELS, seed=i, scale=0.1, **each) for i, each in enumerate(options)]  # type: ignore[arg-type]
    return [check_source(f"s{i}", bundle, classifier, str(base)) for i, bundle in enumerate(bundles)]


@pytest.mark.parametrize("method", ["linear", "cat", "svd"])
def test_an_adapter_merged_with_itself_is_itself(base: Path, sources: list[Source], method: str) -> None:
    found = merged(base, [sources[0], sources[0]], method, (0.3, 0.7))
    assert set(found) == set(sources[0].adapter.factors)
    for module, pair in sources[0].adapter.factors.items():
        torch.testing.assert_close(found[module], delta(pair), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["linear", "cat"])
def test_the_weighted_sum_is_exact_whatever_ranks_scaling_and_modules(base: Path, sources: list[Source], method: str) -> None:
    weights = (0.5, 0.8, -0.2)
    found = merged(base, sources, method, weights)
    assert set(found) == {module for source in sources for module in source.adapter.factors}
    for module, change in found.items():
        parts = [
            w * delta(s.adapter.factors[module]) for w, s in zip(weights, sources, strict=True) if module in s.adapter.factors
        ]
        torch.testing.assert_close(change, torch.stack(parts).sum(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_finite_and_the_same_again(base: Path, sources: list[Source], method: str) -> None:
    pair, weights = sources[:2], usual_weights(method, 2)
    one, again, other = (merged(base, pair, method, weights, seed) for seed in (1, 1, 2))
    assert all(change.isfinite().all() and change.abs().sum() > 0 for change in one.values())
    assert all(torch.equal(one[module], again[module]) for module in one)
    assert all(torch.equal(one[module], other[module]) for module in one) is ("dare" not in method)


def test_heads_are_averaged_and_the_base_models_pooler_counts_where_one_brings_its_own(tiny_base: Path) -> None:
    base = load_base(str(tiny_base))
    classifier = TextClassifier(TextEncoder(base, CPU), 64)
    own = text_bundle(tiny_base, LABELS, seed=1, modules_to_save=["pooler", "classifier"])
    bent = text_bundle(tiny_base, LABELS, seed=2, target_modules=["query", "pooler.dense"])
    a, b = (check_source(name, bundle, classifier, "tiny") for name, bundle in (("a", own), ("b", bent)))
    head = merge_heads(base, [a, b], (1, 3))
    torch.testing.assert_close(head.out[1], 0.25 * a.adapter.head.out[1] + 0.75 * b.adapter.head.out[1])
    theirs = base.tensors["pooler.dense.weight"] + delta(b.adapter.factors["bert.pooler.dense"])
    assert head.dense is not None and a.adapter.head.dense is not None
    torch.testing.assert_close(head.dense[0], 0.25 * a.adapter.head.dense[0] + 0.75 * theirs)
    changes = merge_lora(base, str(tiny_base), [a, b], Plan("linear", (1, 3), 0.5, None, 0))
    assert "bert.pooler.dense" not in changes
    assert merge_heads(base, [b, b], (1, 1)).dense is None


def test_server_and_peft_agree_on_the_bundle_and_it_says_where_it_comes_from(
    base: Path, classifier: TextClassifier, sources: list[Source], tmp_path: Path
) -> None:
    for source in sources:
        write_bundle(source.bundle, tmp_path / source.name)
    (tmp_path / "data.csv").write_text(
        "text,label\n" + "".join(f"{t},{LABELS[i % 2]}\n" for i, t in enumerate(TEXTS * 4)), "utf-8"
    )
    folders = [str(tmp_path / source.name) for source in sources]
    options = ("--base-model", str(base), "--weights", "1,2,1", "--method", "ties_svd", "--data", str(tmp_path / "data.csv"))
    code, output = run(*folders, *options, "--density", "0.4", "--output", str(tmp_path / "both"))
    assert code == 0, output
    bundle = read_bundle(tmp_path / "both")
    adapter = classifier.parse(bundle.config, bundle.tensors, 2)
    rows = AutoTokenizer.from_pretrained(base)(TEXTS)["input_ids"]
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model = PeftModel.from_pretrained(plain, tmp_path / "both").eval()
    with torch.inference_mode():
        expected = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in rows])
    torch.testing.assert_close(text_logits(classifier.encoder, adapter, rows), expected, atol=1e-5, rtol=1e-5)
    lineage = bundle.manifest.recipe["merged_from"]
    assert [each["weight"] for each in lineage["adapters"]] == [1, 2, 1]
    assert [each["digest"] for each in lineage["adapters"]] == [source.bundle.manifest.digest for source in sources]
    assert (lineage["method"], lineage["density"], bundle.manifest.max_length) == ("ties_svd", 0.4, 32)
    assert set(lineage["metrics"]) == {"1 s0", "2 s1", "3 s2"} and "accuracy, validation" in output
    assert set(bundle.manifest.metrics) == {"validation"}


def test_stored_versions_are_merged_by_name(tiny_base: Path, tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "adapters")
    for seed in (1, 2):
        registry.publish("words", text_bundle(tiny_base, LABELS, seed=seed, scale=0.1))
    registry.set_alias("words", "live", Target.at(2))
    registry.close()
    options = ("--base-model", str(tiny_base), "--adapters-dir", str(tmp_path / "adapters"), "--rank", "3")
    code, output = run("words:1", "words", *options, "--output", str(tmp_path / "both"))
    assert code == 0, output
    bundle = read_bundle(tmp_path / "both")
    assert [each["name"] for each in bundle.manifest.recipe["merged_from"]["adapters"]] == ["words:1", "words:2"]
    assert bundle.config["r"] == 3 and bundle.manifest.name == "both"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "1 adapter; a merge takes at least 2"),
        (["a", "labels"], "a has the labels no, yes; labels has down, up: heads can be merged only where labels are the same"),
        (["a", "far"], "far was trained on tiny, not on"),
        (["a", "b", "--method", "mean"], "--method mean: accepted: linear, cat, svd"),
        (["a", "b", "--weights", "1"], "--weights has 1 numbers for 2 adapters"),
        (["a", "b", "--weights", "1,x"], "--weights 1,x: accepted: a number for each adapter"),
        (["a", "b", "--weights", "1,nan"], "--weights 1,nan: accepted: finite numbers"),
        (["a", "b", "--weights", "1,-1"], "--weights sum to 0; more than 0 is accepted"),
        (["a", "b", "--method", "ties"], "has rank 4 in a, 8 in b; ties takes equal ranks, ties_svd any"),
        (["a", "a", "--method", "ties", "--density", "1"], "--density 1: accepted: more than 0, less than 1"),
        (["a", "nowhere"], "nowhere: no adapter_config.json there"),
        (["a", "b", "--name", "A"], "adapter name 'A' is not valid"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_one_line(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_text_bundle(tiny_base, tmp_path / "a", LABELS)
    make_text_bundle(tiny_base, tmp_path / "b", LABELS, r=8)
    make_text_bundle(tiny_base, tmp_path / "labels", ("down", "up"))
    make_text_bundle(save_tiny_base(tmp_path / "other", seed=5), tmp_path / "far", LABELS)
    code, output = run(*arguments, "--base-model", str(tiny_base), "--output", "both")
    assert code == 1 and said in output and len(output.splitlines()) == 1, output
    assert not (tmp_path / "both").exists()


def test_an_adapter_that_does_not_fit_the_base_is_named(tiny_base: Path, tiny_roberta: Path) -> None:
    classifier = TextClassifier(TextEncoder(load_base(str(tiny_base)), CPU), 64)
    made = text_bundle(tiny_roberta, LABELS)
    unsaid = Bundle.assemble(made.config, made.weights, made.manifest.model_copy(update={"base": {}}))
    with pytest.raises(DataError, match="that one does not fit tiny: "):
        check_source("that one", unsaid, classifier, "tiny")
