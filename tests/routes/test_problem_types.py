"""Adapters of several labels at once and of values, over HTTP: PEFT's own numbers, and what is decided by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.store.bundle import Bundle, Manifest
from service.store.layout import MANIFEST
from service.store.problem_types import MULTI_LABEL, REGRESSION
from tests.support.bundles import text_bundle
from tests.support.problems import assert_problem
from tests.support.reference import text_scores
from tests.support.server import Server, bundle_parts

if TYPE_CHECKING:
    from tests.conftest import Start

TEXTS = ["I love how quickly this works", "no", "Oh great, another Monday"]
THRESHOLDS = {"anger": 0.2, "joy": 0.5, "love": 0.8}


@pytest.fixture(scope="module")
def made(tiny_base: Path) -> dict[str, Bundle]:
    """Adapters of each problem type."""
    several: Any = {"problem_type": MULTI_LABEL, "thresholds": tuple(THRESHOLDS.values())}
    return {
        "single": text_bundle(tiny_base, ["no", "yes"], seed=1),
        "emotions": text_bundle(tiny_base, list(THRESHOLDS), seed=2, **several),
        "tagged": text_bundle(tiny_base, ["tag"], seed=3, problem_type=MULTI_LABEL),
        "stars": text_bundle(tiny_base, ["stars"], seed=4, problem_type=REGRESSION),
        "mood": text_bundle(tiny_base, ["valence", "arousal"], seed=5, problem_type=REGRESSION),
    }


@pytest.fixture
def live(start: Start, made: dict[str, Bundle]) -> Server:
    server = start()
    for name, bundle in made.items():
        assert server.publish(name, bundle).status_code == 201
    return server


def test_every_problem_type_is_answered_with_pefts_scores(
    live: Server, made: dict[str, Bundle], tiny_base: Path, tmp_path: Path
) -> None:
    results = live.post("/v1/classify", {"texts": TEXTS, "adapters": list(made)}).json()["results"]
    expected = {name: text_scores(tiny_base, bundle, tmp_path / name, TEXTS) for name, bundle in made.items()}
    for place, result in enumerate(results):
        scores = expected[result["adapter"]][place // len(made)]
        assert result["scores"] == pytest.approx(scores, abs=1e-5)
        if result["adapter"] in ("stars", "mood"):
            assert list(result["scores"]) == list(scores) and result["label"] == next(iter(scores))
        else:
            assert result["label"] == max(scores, key=scores.__getitem__)
        assert result["score"] == result["scores"][result["label"]]


def test_only_of_several_labels_those_that_apply_are_told(live: Server) -> None:
    answer = live.post("/v1/sentiment", {"text": TEXTS[0], "adapter": "emotions"}).json()
    assert answer["labels"] == [label for label, score in answer["scores"].items() if score >= THRESHOLDS[label]]
    cut = live.post("/v1/sentiment", {"text": TEXTS[0], "adapter": "emotions", "top_k": 1}).json()
    assert (len(cut["scores"]), cut["labels"]) == (1, answer["labels"])
    for name in ("single", "stars", "mood"):
        assert "labels" not in live.post("/v1/classify", {"text": "a", "adapter": name}).json()


def test_an_adapter_tells_its_problem_type_and_thresholds(live: Server) -> None:
    shown = {adapter["name"]: adapter for adapter in live.client.get("/v1/adapters").json()["adapters"]}
    types = {name: adapter["problem_type"].partition("_")[0] for name, adapter in shown.items()}
    assert types == {"single": "single", "emotions": "multi", "tagged": "multi", "stars": "regression", "mood": "regression"}
    assert {name: adapter["versions"][0]["thresholds"] for name, adapter in shown.items() if name != "emotions"} == dict.fromkeys(
        ["single", "tagged", "stars", "mood"]
    )
    assert shown["emotions"]["versions"][0]["thresholds"] == THRESHOLDS


def test_other_thresholds_are_another_version(live: Server, made: dict[str, Bundle]) -> None:
    manifest = made["emotions"].manifest
    changed = Manifest.model_validate({**manifest.model_dump(), "thresholds": (0.9, 0.9, 0.9)})
    other = live.upload("emotions", bundle_parts(made["emotions"], manifest=changed.model_dump_json().encode()))
    assert (other.status_code, other.json()["version"]) == (201, 2)
    assert live.publish("emotions", made["emotions"]).json()["version"] == 1


def test_an_adapter_without_a_manifest_is_read_by_its_configuration(live: Server, made: dict[str, Bundle]) -> None:
    config = {**made["stars"].config, "problem_type": REGRESSION, "id2label": {"0": "stars"}}
    parts = bundle_parts(made["stars"], adapter_config=json.dumps(config).encode(), manifest=None)
    assert live.upload("plain", parts, "live").status_code == 201
    plain, told = (live.post("/v1/classify", {"text": "a", "adapter": name}).json() for name in ("plain", "stars"))
    assert plain["scores"] == told["scores"]


def test_what_does_not_go_with_the_problem_type_is_refused(live: Server, made: dict[str, Bundle]) -> None:
    manifest = json.loads(bytes(made["stars"].contents[MANIFEST]))
    wrong = json.dumps({**manifest, "problem_type": "single_label_classification", "thresholds": [2]}).encode()
    body = assert_problem(live.upload("broken", bundle_parts(made["stars"], manifest=wrong)), 422, "adapter_incompatible")
    assert body["faults"] == [
        "manifest.json: labels must have at least 2 entries",
        "manifest.json: thresholds[0] must be less than 1",
    ]


@pytest.mark.parametrize("name", ["emotions", "mood"])
def test_a_shadow_is_held_against_what_was_decided(live: Server, tiny_base: Path, made: dict[str, Bundle], name: str) -> None:
    manifest = made[name].manifest
    options: Any = {"problem_type": manifest.problem_type, "thresholds": manifest.thresholds}
    live.publish(name, text_bundle(tiny_base, manifest.labels, seed=9, **options), None)
    told = [live.post("/v1/classify", {"texts": TEXTS, "adapter": f"{name}:{version}"}).json()["results"] for version in (1, 2)]
    live.client.put(f"/v1/adapters/{name}/aliases/live", json={"version": 1, "shadow": 2})
    live.post("/v1/classify", {"texts": TEXTS, "adapter": name})
    compared = live.client.get(f"/v1/adapters/{name}/aliases/live").json()["comparison"]
    pairs = list(zip(*told, strict=True))
    if name == "emotions":
        agreed = sum(set(one["labels"]) == set(other["labels"]) for one, other in pairs)
    else:
        agreed = sum(one["score"] == pytest.approx(other["score"], rel=0.1) for one, other in pairs)
    drift = sum(abs(one["score"] - other["scores"][one["label"]]) for one, other in pairs)
    assert (compared["rows"], compared["agreement"]) == (len(TEXTS), agreed / len(TEXTS))
    assert compared["score_drift"] == pytest.approx(drift / len(TEXTS), abs=1e-5)
