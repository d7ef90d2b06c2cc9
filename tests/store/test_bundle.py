"""Bundles read from files of other people's making."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from service.errors import AdapterIncompatible
from service.store.bundle import TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING, Bundle, Manifest, read_bundle
from tests.support.bundles import make_text_bundle
from tests.support.hostile import tensor_file

ENDLESS = {"classifier.weight": {"dtype": "U8", "shape": [10**12, 0], "data_offsets": [0, 0]}}
HEAD = save({"base_model.model.classifier.weight": torch.zeros(4, 8)})


def test_a_peft_adapter_without_a_manifest_gets_its_labels_from_its_head() -> None:
    manifest = Bundle.parse(b'{"peft_type": "LORA"}', HEAD).manifest
    assert manifest.task == TEXT_CLASSIFICATION
    assert manifest.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")


def test_or_from_its_configuration() -> None:
    config = {"id2label": {"1": "yes", "0": "no"}}
    assert Bundle.parse(json.dumps(config).encode(), HEAD).manifest.labels == ("no", "yes")


def test_a_vqa_head_without_a_manifest_gets_its_labels_from_its_answers() -> None:
    manifest = Bundle.parse(b'{"task_type": "VQA", "answers": ["lamp", "bed"]}', HEAD).manifest
    assert (manifest.task, manifest.labels) == (VISUAL_QUESTION_ANSWERING, ("lamp", "bed"))


def test_what_is_read_is_what_was_written(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_text_bundle(tiny_base, tmp_path / "a", ["no", "yes"])
    bundle = read_bundle(folder)
    assert bundle.manifest.labels == ("no", "yes")
    assert {name: (folder / name).read_bytes() for name in bundle.contents} == bundle.contents


def test_the_order_of_target_modules_does_not_make_another_version() -> None:
    manifest = Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"))
    one = Bundle.assemble({"target_modules": ["value", "query"]}, b"", manifest)
    other = Bundle.assemble({"target_modules": ["query", "value"]}, b"", manifest)
    assert one.manifest.digest == other.manifest.digest


def test_labels_weights_and_lengths_make_other_versions() -> None:
    def digest(weights: bytes = b"w", **changes: object) -> str:
        fields = {"task": TEXT_CLASSIFICATION, "labels": ("no", "yes"), "max_length": 10, **changes}
        return Bundle.assemble({}, weights, Manifest.model_validate(fields)).manifest.digest

    assert len({digest(), digest(b"v"), digest(labels=("yes", "no")), digest(max_length=11)}) == 4


@pytest.mark.parametrize(
    ("config", "weights", "manifest", "says"),
    [
        (b"{", HEAD, None, "adapter_config.json is not JSON"),
        (b"[]", HEAD, None, "adapter_config.json is not a JSON object"),
        (b"[" * 100_000, HEAD, None, "adapter_config.json is nested too deeply"),
        (b'{"r": 8, "r": 64}', HEAD, None, "adapter_config.json has the key 'r' more than once"),
        (b'{"lora_alpha": Infinity}', HEAD, None, "adapter_config.json has the number Infinity"),
        (b"{}", b"pickle?", None, "adapter_model.safetensors has 7 bytes"),
        (b'{"id2label": {"0": "a", "9": "b"}}', HEAD, None, "manifest.json is missing, and neither"),
        (b'{"id2label": {"0": "a", "\xc2\xb2": "b"}}', HEAD, None, "manifest.json is missing, and neither"),
        (b'{"id2label": {"0": 1, "1": 2}}', HEAD, None, "manifest.json is missing, and neither"),
        (b"{}", tensor_file(ENDLESS, b""), None, "manifest.json is missing, and neither"),
        (b"{}", save({"other": torch.zeros(1)}), None, "manifest.json is missing, and neither"),
        (b"{}", HEAD, b"{}", "manifest.json: task"),
        (b"{}", HEAD, b'{"task": "text-classification", "labels": ["a", "a"]}', "manifest.json: labels"),
        (b"{}", HEAD, b'{"task": "text-classification", "labels": ["a", "b"], "colour": 1}', "manifest.json: colour"),
        (b"{}", HEAD, b'{"task": "x", "task": "text-classification"}', "manifest.json: has the key 'task' more than once"),
        (b"{}", HEAD, b'{"metrics": {"test": {"accuracy": NaN}}}', "manifest.json: has the number NaN"),
        (b"{}", HEAD, b'{"recipe": {"seed": 99999999999999999999}}', "manifest.json: has the number 99999999999999999999"),
        (b"{}", HEAD, b'{"recipe": ' + b'{"a": ' * 50 + b"1" + b"}" * 51, "manifest.json: is nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_named(config: bytes, weights: bytes, manifest: bytes | None, says: str) -> None:
    with pytest.raises(AdapterIncompatible) as refused:
        Bundle.parse(config, weights, manifest)
    assert says in str(refused.value)


def test_the_faults_of_all_files_are_listed_at_once() -> None:
    with pytest.raises(AdapterIncompatible) as refused:
        Bundle.parse(b"[]", b"", b"{")
    assert [fault.split()[0] for fault in refused.value.faults] == [
        "manifest.json:",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterIncompatible, match=r"no adapter_model\.safetensors in the bundle"):
        read_bundle(tmp_path)
