"""Full checkpoints as adapters: equal to the checkpoint where LoRA can carry all, and told what it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.models.base_weights import load_base
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder
from service.store.bundle import read_bundle
from service.tasks.standalone import CPU
from tests.support.bundles import save_tiny_base
from tests.support.checkpoints import plain_logits, save_labelled, save_tuned, sentences
from tests.support.command import script
from training import extract
from training.checkpoint import KINDS
from training.extraction import Extraction
from training.text_measure import text_logits, unmeasured

FULL_RANK = 32  # the tiny models' width, which no layer's rank exceeds
TEXTS = sentences(24, seed=9)


run = partial(script, extract.main)


def rows(folder: Path) -> list[list[int]]:
    ids: list[list[int]] = AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    return ids


def served(base: Path, bundle_folder: Path) -> Tensor:
    bundle = read_bundle(bundle_folder)
    encoder = TextEncoder(load_base(str(base)), CPU)
    adapter = TextClassifier(encoder, 64).parse(bundle.config, bundle.tensors, len(bundle.manifest.labels))
    return text_logits(encoder, adapter, rows(base))


def by_peft(base: Path, bundle_folder: Path) -> Tensor:
    labels = len(read_bundle(bundle_folder).manifest.labels)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    model = PeftModel.from_pretrained(plain, bundle_folder).eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in rows(base)])


@pytest.fixture(scope="module", params=["bert", "roberta"])
def base(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue("tiny_base" if request.param == "bert" else "tiny_roberta")
    return found


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tuned(base, tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def changed_all_over(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tuned(base, tmp_path_factory.mktemp("tuned"), rest=0.05)


def test_at_full_rank_the_adapter_is_the_checkpoint(base: Path, tuned: Path, tmp_path: Path) -> None:
    options = ("--base-model", str(base), "--rank", str(FULL_RANK), "--precision", "fp32", "--output", str(tmp_path / "x"))
    code, output = run(str(tuned), *options)
    assert code == 0, output
    expected = plain_logits(tuned, TEXTS)
    torch.testing.assert_close(served(base, tmp_path / "x"), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(by_peft(base, tmp_path / "x"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("asked", [("--rank", "3"), ("--energy", "0.7")], ids=["a rank", "an energy"])
def test_the_server_and_peft_give_the_same(base: Path, changed_all_over: Path, tmp_path: Path, asked: tuple[str, str]) -> None:
    code, output = run(str(changed_all_over), "--base-model", str(base), *asked, "--output", str(tmp_path / "x"))
    assert code == 0, output
    torch.testing.assert_close(served(base, tmp_path / "x"), by_peft(base, tmp_path / "x"), atol=3e-5, rtol=1e-4)
    assert {tensor.dtype for tensor in read_bundle(tmp_path / "x").tensors.values()} == {torch.float16}


def test_a_higher_rank_keeps_more_and_comes_closer(base: Path, tuned: Path) -> None:
    extraction, expected = Extraction(tuned, str(base)), plain_logits(tuned, TEXTS)
    distances = []

    def measure(encoder: TextEncoder, adapter: TextAdapter) -> dict[str, Any]:
        distances.append(float((text_logits(encoder, adapter, rows(base)) - expected).abs().mean()))
        return {}

    energies = [extraction.at_rank(rank, measure).energy for rank in (1, 8, 24, FULL_RANK)]
    assert energies == sorted(energies) and energies[-1] == pytest.approx(1)
    assert distances[0] > distances[2] > distances[3] and distances[3] < 0.01
    assert extraction.at_energy(0.5, unmeasured).energy == pytest.approx(0.5, abs=0.05)


def test_what_lora_cannot_carry_is_measured(base: Path, changed_all_over: Path, tuned: Path) -> None:
    extraction = Extraction(changed_all_over, str(base))
    shares = extraction.differences.shares()
    assert sum(shares.values()) == pytest.approx(1) and all(shares[kind] > 0 for kind in KINDS)
    assert shares["embeddings"] > 0.5  # 30,000 tokens of 32 numbers, where the layers have 17,000 numbers in all
    untouched = Extraction(tuned, str(base)).differences.shares()
    assert untouched == {"linear layers": 1.0, **dict.fromkeys(KINDS, 0.0)}

    logits: list[Tensor] = []

    def measure(encoder: TextEncoder, adapter: TextAdapter) -> dict[str, Any]:
        logits.append(text_logits(encoder, adapter, rows(base)))
        return {}

    extraction.full(measure)
    extraction.without(KINDS, measure)
    extraction.without([], measure)
    extraction.at_rank(FULL_RANK, measure)
    full, without, same, at_full_rank = logits
    torch.testing.assert_close(full, plain_logits(changed_all_over, TEXTS), atol=1e-4, rtol=0)
    torch.testing.assert_close(same, full, atol=0, rtol=0)
    torch.testing.assert_close(at_full_rank, without, atol=0.05, rtol=0)  # float16
    assert (full - without).abs().mean() > 0.05


def test_the_smallest_rank_within_the_tolerance_is_written(base: Path, tuned: Path, tmp_path: Path) -> None:
    data = save_labelled(tmp_path / "data", tuned)
    options = ("--base-model", str(base), "--ranks", "24,2,8,32", "--data", str(data), "--output", str(tmp_path / "x"))
    code, output = run(str(tuned), *options, "--tolerance", "0.1", "--name", "words")
    assert code == 0, output
    manifest = read_bundle(tmp_path / "x").manifest
    lineage = manifest.recipe["extracted_from"]
    assert lineage["metrics"]["validation"]["accuracy"] == 1
    tried = {int(name.removeprefix("rank ")): values["validation"] for name, values in lineage["accuracy"].items()}
    assert list(tried) == [2, 8, 24, 32] and tried[2] < 0.9 < tried[32]
    assert lineage["rank"] == min(rank for rank, accuracy in tried.items() if accuracy >= 0.9)
    assert manifest.metrics["validation"]["accuracy"] == tried[lineage["rank"]]
    assert manifest.name == "words" and manifest.labels == ("no", "yes") and manifest.recipe["data"]["validation"] == 60
    assert lineage["fingerprint"].startswith("sha256:") and 0 < lineage["energy_kept"] < 1
    assert (
        f"rank {lineage['rank']} *" in output
        and "0.attention.self.query" in output
        and str(tmp_path) not in (tmp_path / "x/README.md").read_text()
    )


def test_where_no_rank_is_enough_the_largest_is_written_and_said(tiny_base: Path, tmp_path: Path) -> None:
    tuned = save_tuned(tiny_base, tmp_path / "tuned")
    data = save_labelled(tmp_path / "data", tuned)
    options = ("--base-model", str(tiny_base), "--ranks", "1,2", "--data", str(data), "--output", str(tmp_path / "x"))
    code, output = run(str(tuned), *options, "--tolerance", "0")
    assert code == 0 and "none is within 0 of the checkpoint; rank 2 was written all the same" in output
    assert read_bundle(tmp_path / "x").config["r"] == 2


def test_an_energy_gives_each_layer_its_own_rank(tiny_base: Path, tmp_path: Path) -> None:
    tuned = save_tuned(tiny_base, tmp_path / "tuned", linear=0.02)
    model = AutoModelForSequenceClassification.from_pretrained(tuned)
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.query.weight += 2 * torch.ones(32, 1) @ torch.ones(1, 32) / 32
    model.save_pretrained(tuned)
    code, output = run(str(tuned), "--base-model", str(tiny_base), "--energy", "0.6", "--output", str(tmp_path / "x"))
    assert code == 0, output
    bundle = read_bundle(tmp_path / "x")
    assert bundle.config["rank_pattern"] == bundle.config["alpha_pattern"] != {}
    assert bundle.manifest.recipe["extracted_from"]["energy_kept"] >= 0.6


def test_distilling_brings_a_low_rank_closer_to_what_lora_cannot_carry(base: Path, tmp_path: Path) -> None:
    tuned = save_tuned(base, tmp_path / "tuned", seed=1, linear=0.03, rest=0.03)
    data, expected = save_labelled(tmp_path / "data", tuned), plain_logits(tuned, TEXTS)
    distances = []
    for epochs in ("0", "8"):
        options = ("--base-model", str(base), "--rank", "8", "--data", str(data), "--distil", epochs)
        code, output = run(str(tuned), *options, "--output", str(tmp_path / epochs))
        assert code == 0, output
        distances.append(float((served(base, tmp_path / epochs) - expected).abs().mean()))
    assert distances[1] < 0.9 * distances[0]
    torch.testing.assert_close(served(base, tmp_path / "8"), by_peft(base, tmp_path / "8"), atol=1e-4, rtol=1e-5)
    assert read_bundle(tmp_path / "8").manifest.recipe["distil_epochs"] == 8


def test_labels_without_names_are_the_datas(tiny_base: Path, tmp_path: Path) -> None:
    tuned = save_tuned(tiny_base, tmp_path / "tuned", ("LABEL_0", "LABEL_1"))
    data = save_labelled(tmp_path / "data", tuned)
    options = ("--base-model", str(tiny_base), "--rank", "32", "--data", str(data), "--output", str(tmp_path / "x"))
    assert run(str(tuned), *options)[0] == 0
    manifest = read_bundle(tmp_path / "x").manifest
    assert manifest.labels == ("no", "yes") and manifest.metrics["validation"]["accuracy"] > 0.95


def other_vocabulary(folder: Path) -> None:
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text("utf-8"))
    words = document["model"]["vocab"]
    words["the"], words["a"] = words["a"], words["the"]
    file.write_text(json.dumps(document), "utf-8")
    (folder / "vocab.txt").unlink(missing_ok=True)


def no_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({name: t for name, t in load_file(file).items() if "classifier" not in name}, file, {"format": "pt"})


def changed(**options: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **options}), "utf-8")

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json; expected the folder of a fine-tuned classifier"),
        (changed(hidden_size=64), "its hidden_size is 64, that of"),
        (changed(vocab_size=100), "its vocab_size is 100, that of"),
        (changed(num_attention_heads=2), "its num_attention_heads is 2, that of"),
        (changed(model_type="roberta"), "its model_type is roberta, that of"),
        (changed(model_type="nothing"), "not a model that transformers can read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "not a model that transformers can read"),
        (no_head, "its weights lack classifier.bias; expected a fine-tuned BertForSequenceClassification, head included"),
        (other_vocabulary, "2 of its 30522 tokens have another number in the vocabulary of"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(
    tiny_base: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    tuned = save_tuned(tiny_base, tmp_path / "tuned")
    spoil(tuned)
    code, output = run(str(tuned), "--base-model", str(tiny_base), "--output", str(tmp_path / "x"))
    assert code == 1 and said in output and output.count("error:") == 1 and len(output.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_of_another_model_of_the_same_form_is_told(tiny_base: Path, tmp_path: Path) -> None:
    other = save_tuned(save_tiny_base(tmp_path / "other", seed=7), tmp_path / "tuned")
    code, output = run(str(other), "--base-model", str(tiny_base), "--output", str(tmp_path / "x"))
    assert code == 1 and "of their size away from those of" in output and "--base-model" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rank", "4", "--energy", "0.9"], "give one of them"),
        (["--energy", "1.5"], "--energy 1.5: accepted: more than 0, at most 1"),
        (["--ranks", "4,x"], "--ranks 4,x: accepted: whole numbers from 1 with commas"),
        (["--ranks", "4,8"], "--data decides which of them is enough"),
        (["--distil", "2"], "--distil 2: it takes the training texts of --data"),
        (["--precision", "int8"], "--precision int8: accepted: fp16, fp32"),
        (["--name", "A B"], "adapter name 'A B' is not valid"),
        (["--base-model", "/nowhere"], "--base-model=/nowhere: no model there"),
        (["--data", "nowhere.csv"], "nowhere.csv: no such file or folder"),
    ],
)
def test_options_that_cannot_be_are_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    code, output = run(str(tmp_path), "--output", str(tmp_path / "x"), *arguments)
    assert code == 1 and said in output and output.count("error:") == 1
    assert not (tmp_path / "x").exists()


def test_data_with_other_labels_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    tuned = save_tuned(tiny_base, tmp_path / "tuned")
    data = save_labelled(tmp_path / "data", tuned, ("maybe", "yes"))
    code, output = run(str(tuned), "--base-model", str(tiny_base), "--data", str(data), "--output", str(tmp_path / "x"))
    assert code == 1 and "label 'maybe' of the data is not the model's; it has no, yes" in output


def test_a_folder_without_a_tokenizer_is_taken(tiny_base: Path, tmp_path: Path) -> None:
    tuned = save_tuned(tiny_base, tmp_path / "tuned")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tuned / name).unlink(missing_ok=True)
    assert run(str(tuned), "--base-model", str(tiny_base), "--output", str(tmp_path / "x"))[0] == 0
