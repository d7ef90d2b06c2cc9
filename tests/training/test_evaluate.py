"""Scoring an adapter: in a folder, in a local store and on a running server alike, for every kind of problem."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from service.errors import InvalidInput
from service.store.bundle import Bundle, Manifest, Task
from service.store.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL, ProblemType
from tests.support.bundles import vqa_bundle
from tests.support.command import fails, quickchange
from tests.support.server import Server
from training.anywhere import Places, Scores, opened
from training.bundles import write_bundle
from training.findings import as_json
from training.scored import Scored
from training.scoring import Rows, score

if TYPE_CHECKING:
    from tests.conftest import Towers

WORDS = ("a fine day", "what luck", "rain again", "so it goes", "@user well done", "#never mind", "lovely 🙂", "see http")
TEXTS = [f"{a}, {b}" for a in WORDS for b in WORDS]
COLOURS = ("red", "green", "blue", "white")
FACTS = ("adapter", "digest", "data", "split")


class Answering:
    """An adapter that gives scores which are told beforehand, by text."""

    def __init__(
        self, problem_type: ProblemType, labels: Sequence[str], scores: Mapping[str, Scores], thresholds: Any = None
    ) -> None:
        task: Task = "text-classification"
        self.name, self._scores = "told", scores
        self.manifest = Manifest(task=task, problem_type=problem_type, labels=tuple(labels), thresholds=thresholds)

    def classify(self, texts: Sequence[str]) -> list[Scores]:
        return [self._scores[text] for text in texts]

    def answer(self, images: Sequence[tuple[bytes, Sequence[str]]]) -> list[Scores]:
        raise NotImplementedError(images)


@pytest.fixture(scope="module")
def exact(
    tiny_base: Path, bundles: dict[str, Bundle], towers: Towers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that computes in float32, as scoring does; irony's live version is the second, its canary the first."""
    with Server(tiny_base, tmp_path_factory.mktemp("adapters"), dtype="fp32", max_client_batch_size=24) as running:
        assert running.publish("irony", bundles["irony"], "canary").status_code == 201
        assert running.publish("irony", bundles["irony-2"], "live").status_code == 201
        head = vqa_bundle(*towers, [*COLOURS, "chair", "2", "lamp"])
        assert running.publish("vqa", head).status_code == 201
        yield running


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "texts.csv"
    rows = [f'"{text}",{("literal", "ironic")[i % 2]}' for i, text in enumerate(TEXTS)]
    file.write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    return file


def evaluated(*arguments: object) -> dict[str, Any]:
    result = quickchange("evaluate", *map(str, arguments), "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def bare(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, without the names of what was scored."""
    return {name: value for name, value in found.items() if name not in FACTS}


def test_the_folder_the_store_and_the_server_give_the_same_figures(
    exact: Server, table: Path, tiny_base: Path, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    write_bundle(bundles["irony-2"], tmp_path / "irony")
    places = ("--adapters-dir", exact.adapters, "--base-model", tiny_base)
    on_disk = evaluated(tmp_path / "irony", table, "--split", "all", *places)
    stored, live = (evaluated("irony", table, "--split", "all", *rest) for rest in (places, ("--server", exact.url)))
    assert bare(on_disk) == bare(stored) == bare(live)
    assert stored["adapter"] == live["adapter"] == "irony:2" and on_disk["digest"] == live["digest"]
    assert on_disk["rows"] == len(TEXTS) and {"short", "long", "hashtag", "mention", "emoji", "url"} <= set(live["slices"])
    for selector in ("irony:1", "irony@canary"):
        assert (
            bare(evaluated(selector, table, "--split", "all", "--server", exact.url))
            == bare(evaluated(selector, table, "--split", "all", *places))
            != bare(live)
        )


def questions(folder: Path) -> Path:
    """DAQUAR's layout: questions for the colour of four images, one of which is answered by what nobody lists."""
    (folder / "images").mkdir(parents=True)
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (32, 24), colour).save(folder / "images" / f"image{i}.png")
    rows = [f"what colour is wall {i},{('piano', *COLOURS[1:])[i % 4]},image{i % 4}" for i in range(60)]
    (folder / "data_train.csv").write_text("\n".join(["question,answer,image_id", *rows]), "utf-8")
    (folder / "answer_space.txt").write_text("\n".join((*COLOURS, "chair")), "utf-8")
    return folder


def test_a_vqa_adapter_on_disk_and_live(exact: Server, tmp_path: Path) -> None:
    folder = questions(tmp_path / "daquar")
    stored = evaluated("vqa", folder, "--split", "validation", "--adapters-dir", exact.adapters)
    live = evaluated("vqa", folder, "--split", "validation", "--server", exact.url)
    assert stored["figures"] == live["figures"] and stored["slices"] == live["slices"]
    assert set(live["slices"]) == {"colour", "object"} and live["slices"]["object"]["accuracy"] == 0


def test_the_report_has_the_figures_and_the_plots(exact: Server, table: Path, tmp_path: Path) -> None:
    found = evaluated("irony", table, "--server", exact.url, "--report", tmp_path / "report")
    assert json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["figures"] == found
    assert len(list((tmp_path / "report" / "plots").glob("*.png"))) == 2
    written = (tmp_path / "report" / "report.md").read_text("utf-8") + (tmp_path / "report" / "report.json").read_text("utf-8")
    assert not [text for text in TEXTS if text in written]


def scored(
    problem_type: ProblemType, labels: Sequence[str], told: Sequence[tuple[Any, Scores]], thresholds: Any = None
) -> Scored:
    """Targets and scores of rows, put through an adapter."""
    texts = [f"text {i}" for i in range(len(told))]
    adapter = Answering(problem_type, labels, {text: scores for text, (_, scores) in zip(texts, told, strict=True)}, thresholds)
    return score(adapter, Rows(problem_type, tuple(labels), [true for true, _ in told], texts))


def test_label_sets_by_their_thresholds() -> None:
    told = [(("a", "b"), {"b": 0.35, "a": 0.9}), ((), {"a": 0.4, "b": 0.2}), (("a",), {"a": 0.45, "b": 0.01})]
    assert scored(MULTI_LABEL, ["a", "b"], told).figures["accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    found = scored(MULTI_LABEL, ["a", "b"], told, (0.42, 0.3))
    assert found.figures == {"accuracy": 1.0, "macro_f1": 1.0, "micro_f1": 1.0}
    assert found.hardest() == [] and scored(MULTI_LABEL, ["a", "b"], told).hardest()[0].index in (0, 2)
    assert json.loads(json.dumps(as_json(found)))["calibration"] is None


def test_values() -> None:
    told = [((1.0,), {"stars": 1.5}), ((3.0,), {"stars": 3.0}), ((5.0,), {"stars": 4.0})]
    found = scored(REGRESSION, ["stars"], told)
    assert (found.figures["mae"], found.hardest()[0].index, found.hardest()[0].given) == (0.5, 2, "4")
    assert found.by_label["stars"]["support"] == 3


def test_probabilities_of_zero_are_no_trouble() -> None:
    found = scored(SINGLE_LABEL, ["a", "b"], [("a", {"b": 1.0, "a": 0.0}), ("b", {"b": 1.0, "a": 0.0})])
    hard = found.hardest()[0]
    assert (found.figures["accuracy"], hard.index, hard.true, hard.given, hard.probability) == (0.5, 0, "a", "b", 1.0)


def test_what_is_wrong_is_one_line(exact: Server, table: Path, tiny_base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table.read_text("utf-8").replace("literal", "straight"), "utf-8")
    places = ("--adapters-dir", str(exact.adapters), "--base-model", str(tiny_base))
    for arguments, says in {
        (str(tmp_path), str(table)): "no adapter_config.json in the bundle; accepted: a bundle's folder, NAME",
        ("irony", str(table), "--adapters-dir", str(tmp_path / "none")): "irony: no such folder, and no folder",
        ("emotion", str(table), *places): "no adapter named 'emotion'; live: irony, vqa",
        ("irony:7", str(table), *places): "has no version 7; it has 1, 2",
        ("irony@best", str(table), "--server", exact.url): "adapter 'irony' has no alias 'best'; it has canary, live",
        ("irony", str(table), "--server", "http://127.0.0.1:9"): "no server answers at http://127.0.0.1:9",
        ("irony", str(table), "--split", "dev", *places): "no split 'dev'; it has train, validation, and all means every row",
        ("irony", str(other), *places): "label 'straight' of the data is not that of the adapter irony:2; it has literal, ironic",
        ("irony", "nowhere.csv", *places): "nowhere.csv: no such file or folder",
    }.items():
        fails(quickchange("evaluate", *arguments), says)


def test_texts_are_nothing_to_a_vqa_adapter(exact: Server, table: Path) -> None:
    arguments = ("compare", "irony", "vqa", str(table), "--server", exact.url)
    fails(quickchange(*arguments), "vqa:1 answers visual-question-answering; the data has texts")
    with (
        opened("vqa", Places(exact.adapters)) as adapter,
        pytest.raises(InvalidInput, match="vqa:1 answers visual-question-answering; these are texts"),
    ):
        adapter.classify(TEXTS)
