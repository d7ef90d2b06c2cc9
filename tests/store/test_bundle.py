"""Bundles read from files of other people's making."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from service.errors import AdapterIncompatible
from service.store.bundle import TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING, Bundle, Manifest, read_bundle
from service.store.images import MOST_BYTES
from service.store.layout import IMAGES
from service.store.problem_types import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from tests.support.bundles import make_text_bundle
from tests.support.hostile import tensor_file
from tests.support.images import card_images, image_file

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


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_and_its_problem_type_from_its_configuration(problem_type: str) -> None:
    assert Bundle.parse(json.dumps({"problem_type": problem_type}).encode(), HEAD).manifest.problem_type == problem_type
    assert Bundle.parse(b'{"problem_type": null}', HEAD).manifest.problem_type == SINGLE_LABEL


def test_one_value_is_enough_for_regression_and_one_label_where_each_is_decided_for_itself() -> None:
    lone = save({"classifier.weight": torch.zeros(1, 8)})
    for problem_type in (MULTI_LABEL, REGRESSION):
        assert Bundle.parse(json.dumps({"problem_type": problem_type}).encode(), lone).manifest.labels == ("LABEL_0",)


def test_what_is_read_is_what_was_written(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_text_bundle(tiny_base, tmp_path / "a", ["no", "yes"], images=card_images())
    bundle = read_bundle(folder)
    assert bundle.manifest.labels == ("no", "yes")
    assert {name: bundle.files[name] for name in IMAGES} == card_images()
    assert set(bundle.manifest.files) == set(bundle.files)
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

    several = digest(problem_type=MULTI_LABEL)
    split = digest(problem_type=MULTI_LABEL, thresholds=(0.5, 0.2))
    others = [digest(b"v"), digest(labels=("yes", "no")), digest(max_length=11), digest(problem_type=REGRESSION)]
    assert len({digest(), several, split, *others}) == 7


def test_card_and_images_do_not_make_another_version() -> None:
    manifest = Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"))
    shown = Bundle.assemble({}, b"", manifest, "# card", card_images())
    assert shown.manifest.digest == Bundle.assemble({}, b"", manifest).manifest.digest
    assert list(shown.contents) == ["adapter_config.json", "adapter_model.safetensors", "README.md", *IMAGES, "manifest.json"]


def test_an_image_that_is_none_is_named_with_what_would_be_accepted() -> None:
    images = {"plot.png": image_file(), "curves.png": b"GIF89a", "confusion.png": image_file() + bytes(MOST_BYTES)}
    with pytest.raises(AdapterIncompatible) as refused:
        Bundle.assemble({}, HEAD, images=images)
    assert list(refused.value.faults) == [
        "'plot.png' is no image of a bundle; accepted: confusion.png, curves.png, reliability.png",
        "curves.png is not a PNG image; its first bytes are others",
        f"confusion.png has {len(images['confusion.png']):,} bytes; at most 524,288 are accepted",
    ]
    largest = image_file() + bytes(MOST_BYTES - len(image_file()))
    assert Bundle.assemble({}, HEAD, images={"confusion.png": largest}).files["confusion.png"] == largest


def test_a_manifest_without_thresholds_has_the_digest_that_it_had_before_there_were_any() -> None:
    manifest = Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"), max_length=10)
    known = "sha256:b00491433bf90a064d34f349f34ccd5d6c299de9d7bfefbf844c28b65747b8a2"
    assert Bundle.assemble({}, b"w", manifest).manifest.digest == known
    assert "thresholds" not in manifest.model_dump_json()


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
        (b'{"problem_type": "ranking"}', HEAD, None, "has the problem_type 'ranking'; accepted: single_label_classification"),
        (b'{"problem_type": ["regression"]}', HEAD, None, "has the problem_type ['regression']; accepted: single_label"),
        (b"{}", save({"classifier.weight": torch.zeros(1, 8)}), None, "tells 2 to 100,000 distinct labels"),
        (b'{"problem_type": "regression", "id2label": {}}', HEAD, None, "tells 1 to 100,000 distinct labels"),
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


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"problem_type": "ranking"}, [f"problem_type must be '{SINGLE_LABEL}', '{MULTI_LABEL}' or '{REGRESSION}'"]),
        ({"labels": ["a"]}, ["labels must have at least 2 entries"]),
        ({"labels": [], "problem_type": MULTI_LABEL}, ["labels must not be empty"]),
        ({"labels": [], "problem_type": REGRESSION}, ["labels must not be empty"]),
        ({"thresholds": [0.5, 0.5]}, ["thresholds are for multi_label_classification only"]),
        ({"thresholds": [0.5, 0.5], "problem_type": REGRESSION}, ["thresholds are for multi_label_classification only"]),
        ({"thresholds": [0.5], "problem_type": MULTI_LABEL}, ["thresholds must have 2 entries, one for each label"]),
        (
            {"thresholds": [0, 1, "x"], "problem_type": MULTI_LABEL, "labels": ["a", "a"]},
            [
                "labels must be distinct",
                "thresholds[0] must be more than 0",
                "thresholds[1] must be less than 1",
                "thresholds[2] must be a number",
            ],
        ),
        (
            {"task": VISUAL_QUESTION_ANSWERING, "problem_type": MULTI_LABEL},
            [f"problem_type must be '{SINGLE_LABEL}' for visual-question-answering"],
        ),
    ],
)
def test_what_does_not_go_with_a_problem_type_is_listed(fields: dict[str, object], faults: list[str]) -> None:
    manifest = json.dumps({"task": TEXT_CLASSIFICATION, "labels": ["a", "b"], **fields}).encode()
    with pytest.raises(AdapterIncompatible) as refused:
        Bundle.parse(b"{}", HEAD, manifest)
    assert list(refused.value.faults) == [f"manifest.json: {fault}" for fault in faults]


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
