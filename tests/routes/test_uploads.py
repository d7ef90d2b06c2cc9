"""Uploads that are refused: every fault is named, and nothing of them stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from service.store.bundle import Bundle
from service.store.images import MOST_BYTES
from tests.support.bundles import text_bundle
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server, bundle_parts

LAYER = "base_model.model.bert.encoder.layer.0.attention.self"
HEAD = "base_model.model.classifier"
WRONG_FIELDS = json.dumps({"task": "poetry", "labels": ["a", "a"], "x": 1}).encode()
Change = Callable[[Bundle], bytes]


def weights(changes: dict[str, torch.Tensor | None]) -> Change:
    """The bundle's weights with some tensors replaced, added or (None) left out."""

    def change(bundle: Bundle) -> bytes:
        data: bytes = save({name: t for name, t in {**bundle.tensors, **changes}.items() if t is not None})
        return data

    return change


def config(**changes: Any) -> Change:
    """The bundle's configuration with some options changed."""
    return lambda bundle: json.dumps({**bundle.config, **changes}).encode()


REFUSED: dict[str, tuple[str, bytes | Change, list[str]]] = {
    "weights that are no file of tensors": ("adapter_model", b"x" * 100, ["is to have a header of 8680820740569200760 bytes"]),
    "empty weights": ("adapter_model", b"", ["adapter_model.safetensors has 0 bytes"]),
    "a pickle": ("adapter_model", b"\x80\x04}q\x00.", ["adapter_model.safetensors has 6 bytes"]),
    "weights cut off": ("adapter_model", lambda bundle: bytes(bundle.weights[:-40]), ["the file must be whole"]),
    "a header of 2^63 bytes": ("adapter_model", b"\0" * 7 + b"\x80{}", [f"a header of {2**63} bytes; 1 to 4,000,000"]),
    "a configuration that is not JSON": ("adapter_config", b"{", ["adapter_config.json is not JSON"]),
    "a configuration that is a list": ("adapter_config", b"[]", ["not a JSON object"]),
    "a configuration nested without end": ("adapter_config", b"[" * 100_000, ["nested too deeply"]),
    "an empty configuration": ("adapter_config", b"{}", ["peft_type"]),
    "another method": ("adapter_config", config(peft_type="IA3"), ["IA3"]),
    "an option that changes answers": ("adapter_config", config(use_dora=True), ["use_dora"]),
    "a rank over the limit": ("adapter_config", config(r=100_000), ["rank"]),
    "a rank that is no number": ("adapter_config", config(r="many"), ["r 'many'"]),
    "a value that is not finite": (
        "adapter_model",
        weights({f"{HEAD}.bias": torch.tensor([0.0, float("nan")])}),
        ["classifier.bias holds a value that is not finite"],
    ),
    "several faults": (
        "adapter_model",
        weights({f"{HEAD}.bias": None, f"{LAYER}.query.lora_A.weight": torch.ones(4, 5), "extra": torch.ones(1)}),
        ["no tensor base_model.model.classifier.bias", "(4, 5)", "extra belongs to nothing"],
    ),
    "a wrong number of labels": ("adapter_model", weights({f"{HEAD}.weight": torch.ones(5, 32)}), ["(5, 32)"]),
    "a manifest that is not JSON": ("manifest", b"{", ["manifest.json: is not JSON"]),
    "a manifest without fields": ("manifest", b"{}", ["task is required", "labels is required"]),
    "a manifest with wrong fields": (
        "manifest",
        WRONG_FIELDS,
        [
            "task must be 'text-classification' or 'visual-question-answering'",
            "labels must be distinct",
            "x is not a known field",
        ],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_adapter_is_refused_with_every_fault_and_leaves_no_trace(
    server: Server, bundles: dict[str, Bundle], case: str
) -> None:
    part, change, faults = REFUSED[case]
    before, listed = server.tree(), server.client.get("/v1/adapters").json()
    undescribed = bundles["irony"].manifest.model_copy(update={"files": {}}).model_dump_json().encode()
    changed = change if isinstance(change, bytes) else change(bundles["irony"])
    sent = {**bundle_parts(bundles["irony"]), "manifest": undescribed, part: changed}
    body = assert_problem(server.upload("broken", sent, "live"), 422, "adapter_incompatible")
    for fault in faults:
        assert any(fault in line for line in body["faults"]), body["faults"]
    assert server.tree() == before
    assert server.client.get("/v1/adapters").json() == listed
    assert_problem(server.client.get("/v1/adapters/broken"), 404, "adapter_not_found")


@pytest.mark.parametrize("name", ["chart.png", "../confusion.png", "CURVES.PNG", "confusion.png\\0"])
def test_an_image_of_another_name_is_refused(server: Server, bundles: dict[str, Bundle], name: str) -> None:
    before = server.tree()
    response = server.upload("broken", bundle_parts(bundles["irony"]), images=[(name, image_file())])
    assert_problem(response, 400, "bad_request", "accepted: confusion.png, curves.png, reliability.png")
    assert server.tree() == before


def test_an_image_that_is_there_twice_or_is_no_file_is_named(server: Server, bundles: dict[str, Bundle]) -> None:
    twice = [("curves.png", image_file())] * 2
    response = server.upload("broken", bundle_parts(bundles["irony"]), images=twice)
    assert_problem(response, 400, "bad_request", "images has curves.png more than once")
    as_text = server.client.post("/v1/adapters/broken/versions", files=bundle_parts(bundles["irony"]), data={"images": "x"})
    assert_problem(as_text, 400, "bad_request", "images must be a file")


def test_all_that_is_wrong_with_images_is_listed(server: Server, bundles: dict[str, Bundle]) -> None:
    before = server.tree()
    large = image_file() + b"\0" * MOST_BYTES
    images = [("curves.png", image_file(kind="JPEG")), ("confusion.png", large), ("reliability.png", image_file())]
    response = server.upload("broken", bundle_parts(bundles["irony"], adapter_config=b"["), images=images)
    assert assert_problem(response, 422, "adapter_incompatible")["faults"] == [
        "adapter_config.json is not JSON, first at line 1, column 2",
        "curves.png is not a PNG image; its first bytes are others",
        f"confusion.png has {len(large):,} bytes; at most 524,288 are accepted",
    ]
    other = server.upload("broken", bundle_parts(bundles["irony-2"]), images=[("curves.png", image_file(9))])
    assert_problem(other, 422, "adapter_incompatible", "curves.png is not the file that manifest.json describes")
    assert server.tree() == before


def test_files_that_the_manifest_does_not_describe_are_refused(server: Server, bundles: dict[str, Bundle]) -> None:
    mixed = bundle_parts(bundles["irony"], adapter_model=bytes(bundles["irony-2"].weights))
    assert_problem(server.upload("broken", mixed), 422, "adapter_incompatible", "adapter_model.safetensors is not the file")


def test_an_adapter_of_another_base_model_is_refused_with_its_other_faults(server: Server, tiny_roberta: Path) -> None:
    other = text_bundle(tiny_roberta, ["a", "b"], r=100)
    body = assert_problem(server.publish("other", other), 422, "adapter_incompatible")
    assert "trained on tiny (sha256:" in body["faults"][0] and "this server's base model is sha256:" in body["faults"][0]
    assert "r 100 is not a rank" in body["faults"][1]
    assert "no tensor base_model.model.classifier.weight" in body["faults"]


def test_a_head_for_another_image_encoder_is_refused(server: Server, bundles: dict[str, Bundle]) -> None:
    manifest = bundles["vqa"].manifest.model_dump(mode="json")
    manifest["base"] |= {"image_encoder": {"name": "eye\n", "fingerprint": "sha256:0"}, "ear": manifest["base"]["image_encoder"]}
    sent = bundle_parts(bundles["vqa"], manifest=json.dumps(manifest).encode())
    body = assert_problem(server.upload("other", sent), 422, "adapter_incompatible")
    assert body["faults"][0].startswith("it was trained on eye\\n (sha256:0…); this server's image encoder is sha256:")
    assert body["faults"][1] == "its manifest has the base 'ear'; accepted: image_encoder, sentence_encoder"


def test_a_bad_alias_refuses_the_whole_upload(server: Server, bundles: dict[str, Bundle]) -> None:
    before = server.tree()
    assert_problem(server.publish("fresh", bundles["irony"], "../live"), 422, "invalid_input", "alias")
    assert server.tree() == before


@pytest.mark.parametrize("missing", ["adapter_config", "adapter_model"])
def test_a_missing_part_is_named(server: Server, bundles: dict[str, Bundle], missing: str) -> None:
    response = server.upload("fresh", bundle_parts(bundles["irony"], **{missing: None}))
    assert_problem(response, 400, "bad_request", f"{missing} is required")


def test_an_unknown_or_misplaced_part_is_named(server: Server, bundles: dict[str, Bundle]) -> None:
    assert_problem(
        server.upload("fresh", bundle_parts(bundles["irony"], alais=b"live")), 400, "bad_request", "alais is not a known field"
    )
    as_text = server.client.post("/v1/adapters/fresh/versions", data={"adapter_config": "{}"}, files={"manifest": b"{}"})
    assert_problem(as_text, 400, "bad_request", "adapter_config must be a file")


def test_an_adapter_keeps_to_one_task(server: Server, bundles: dict[str, Bundle]) -> None:
    before = server.tree()
    assert_problem(server.publish("vqa", bundles["emotion"]), 409, "version_conflict", "visual-question-answering")
    assert_problem(server.publish("emotion", bundles["vqa"]), 409, "version_conflict", "text-classification")
    assert server.tree() == before


def test_a_dry_run_does_all_but_publish(server: Server, bundles: dict[str, Bundle], tiny_base: Path) -> None:
    new = text_bundle(tiny_base, ["a", "b"], seed=99)
    before, listed = server.tree(), server.client.get("/v1/adapters").json()
    told = {"digest": new.manifest.digest, "task": "text-classification", "labels": ["a", "b"], "version": None, "dry_run": True}
    for name, aliases in (("fresh", {}), ("irony", {"canary": 1, "live": 2})):
        response = server.publish(name, new, params={"dry_run": "true"})
        assert response.status_code == 200 and response.json() == {"name": name, "aliases": aliases, **told}
    known = server.publish("irony", bundles["irony"], params={"dry_run": "true"})
    assert known.status_code == 200 and (known.json()["version"], known.json()["aliases"]["live"]) == (1, 2)
    assert server.tree() == before and server.client.get("/v1/adapters").json() == listed
    assert_problem(server.client.get("/v1/adapters/fresh"), 404, "adapter_not_found")


def test_a_dry_run_finds_what_an_upload_would(server: Server, bundles: dict[str, Bundle], tiny_base: Path) -> None:
    dry = {"dry_run": "true"}
    broken = bundle_parts(bundles["irony"], adapter_config=b"[]", adapter_model=b"")
    assert len(assert_problem(server.upload("fresh", broken, params=dry), 422, "adapter_incompatible")["faults"]) == 2
    assert_problem(server.publish("vqa", bundles["emotion"], params=dry), 409, "version_conflict")
    assert_problem(server.publish("Fresh", bundles["irony"], params=dry), 422, "invalid_input", "adapter name 'Fresh'")
    assert_problem(server.publish("fresh", bundles["irony"], "../live", params=dry), 422, "invalid_input", "alias '../live'")
    overflowing = text_bundle(tiny_base, ["a", "b"], lora_alpha=1e38)
    assert_problem(server.publish("fresh", overflowing, params=dry), 422, "adapter_incompatible", "not finite")
    assert_problem(server.publish("fresh", bundles["irony"], params={"dry_run": "maybe"}), 400, "bad_request", "dry_run")


@pytest.mark.parametrize("part", ["adapter_model", "manifest", "alias"])
def test_a_part_that_is_there_twice_is_named(server: Server, bundles: dict[str, Bundle], part: str) -> None:
    files: list[Any] = [(name, (name, data)) for name, data in bundle_parts(bundles["irony"]).items()]
    twice = [(part, (part, b"{}"))] if part != "alias" else [("alias", (None, b"live"))] * 2
    response = server.client.post("/v1/adapters/fresh/versions", files=[*files, *twice])
    assert_problem(response, 400, "bad_request", f"{part} is given more than once")
