"""WUPS on a hand-made WordNet against values computed by hand, and accuracy by type of question."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.wordnet import dict_folder
from training.data import DataError
from training.vqa_data import Example
from training.vqa_measure import Similarity, figures, similarity_of, wups
from training.wordnet import INSTALLED, WordNet, find_wordnet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dict_folder(tmp_path_factory.mktemp("wn") / "dict")


@pytest.fixture(scope="module")
def alike(folder: Path) -> Similarity:
    found = similarity_of(folder)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("chair", "chair", 1.0),
        ("table", "board", 1.0),  # one synset
        ("chair", "seat", 2 * 4 / (5 + 4)),
        ("chair", "table", 2 * 3 / (5 + 4)),  # they meet at furniture, three from the root
        ("chair", "red", 2 * 1 / (3 + 3)),  # of a chair's two senses the person is nearer
        ("chair", "person", 2 * 2 / (3 + 2)),
        ("sofa bed", "chair", 2 * 4 / (5 + 5)),  # of two hypernyms the one deeper from the root counts
        ("sofa_bed", "table", 2 * 3 / (4 + 4)),  # by the shorter of two ways
        ("chairs", "persons", 2 * 2 / (3 + 2)),  # by rule, and by exception
        ("alone", "chair", 0.0),  # nothing above both
        ("nowhere", "chair", 0.0),
        ("nowhere", "nowhere", 1.0),
    ],
)
def test_similarity_is_wu_and_palmers(alike: Similarity, first: str, second: str, expected: float) -> None:
    assert alike(first, second) == pytest.approx(expected)
    assert alike(second, first) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "true", "threshold", "expected"),
    [
        ({"chair"}, {"chair"}, 0.9, 1.0),
        ({"chair"}, {"table"}, 0.0, 2 / 3),
        ({"chair"}, {"table"}, 0.9, 2 / 30),
        ({"chair"}, {"chair", "table"}, 0.0, 2 / 3),  # the table is answered by the chair alone
        ({"chair"}, {"chair", "table"}, 0.9, 2 / 30),
        ({"table"}, {"chair", "seat"}, 0.0, 2 / 3 * 3 / 4),
        ({"table"}, {"chair", "seat"}, 0.9, 2 / 30 * 3 / 40),
        ({"chair", "table"}, {"chair"}, 0.0, 2 / 3),
        ({"chair", "table"}, {"table", "chair"}, 0.9, 1.0),
    ],
)
def test_wups_is_the_lesser_product_over_sets(
    alike: Similarity, given: set[str], true: set[str], threshold: float, expected: float
) -> None:
    assert wups(given, true, alike, threshold) == pytest.approx(expected)


def example(answers: tuple[str, ...], kind: str) -> Example:
    return Example("what", Path("image.png"), 0, answers, kind)


def test_figures_are_means_over_questions_and_types(alike: Similarity) -> None:
    examples = [example(("chair",), "object"), example(("table", "chair"), "object"), example(("red",), "colour")]
    found = figures(["chair", "chair", "red"], examples, alike)
    assert found == {
        "accuracy": 0.6667, "accuracy_any": 1.0, "accuracy_colour": 1.0, "accuracy_object": 0.5,
        "wups_0.9": round((1 + 2 / 30 + 1) / 3, 4), "wups_0.0": round((1 + 2 / 3 + 1) / 3, 4),
    }  # fmt: skip
    assert set(figures(["chair"], examples[:1])) == {"accuracy", "accuracy_object"}


def test_wordnet_is_found_where_the_environment_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert find_wordnet(None) is not None
    monkeypatch.delenv("WNSEARCHDIR")
    monkeypatch.setenv("WNHOME", str(folder.parent))
    assert find_wordnet(None) is not None
    monkeypatch.setenv("WNHOME", "/nowhere")
    monkeypatch.setattr("training.wordnet.INSTALLED", "/nowhere")
    assert find_wordnet(None) is None and INSTALLED == "/usr/share/wordnet"


def test_a_folder_without_wordnet_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no index\.noun and no data\.noun; expected a folder of WordNet's dictionary files"):
        find_wordnet(tmp_path)
    for name in ("index.noun", "data.noun"):
        (tmp_path / name).write_text("chair n x\n")
    with pytest.raises(DataError, match="is not in WordNet's format"):
        WordNet(tmp_path)
    (tmp_path / "index.noun").write_text("chair n 1 0 1 0 00000003\n")
    with pytest.raises(DataError, match=r"data\.noun: no synset at 3"):
        WordNet(tmp_path).similarity(3, 3)
