"""The study of frozen towers: one report of every pair, resumed where it stopped, with what guessing reaches beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.support.clip import clip_folder
from tests.support.vqa import daquar
from tests.support.wordnet import dict_folder
from training.study_vqa import main

SMALL = ("--members", "2", "--member-size", "8", "--epochs", "3", "--batch-size", "16")


def command(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    one, other = (f"clip:{clip_folder(tmp_path / name, seed)}" for seed, name in enumerate(("one", "other")))
    towers = ("--towers", f"{one}+{one}", "--towers", f"{other}+{one}")
    places = ("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    data = str(daquar(tmp_path / "walls", 120))
    return [data, *towers, *SMALL, *places, "--seeds", "0,1", "--wordnet", str(dict_folder(tmp_path / "dict"))]


def test_every_pair_is_reported_with_guessing_beside_it(tmp_path: Path, arguments: list[str]) -> None:
    code, printed = command(*arguments)
    assert code == 0, printed
    found = json.loads((tmp_path / "out" / "report.json").read_text())["figures"]["validation"]
    assert set(found) == {"clip:one+clip:one", "clip:other+clip:one"}
    for figures in found.values():
        assert {"accuracy", "accuracy_any", "accuracy_colour", "wups_0.9", "wups_0.0"} <= set(figures)
        assert {"accuracy_question_only", "accuracy_image_only"} <= set(figures)
        assert figures["accuracy"] <= figures["wups_0.9"] + 1 and figures["wups_0.9"] <= figures["wups_0.0"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and str(tmp_path) not in page
    assert "question only" in (tmp_path / "out" / "report.md").read_text()


def test_a_study_goes_on_where_it_stopped_and_refuses_another_recipe(tmp_path: Path, arguments: list[str]) -> None:
    assert command(*arguments)[0] == 0
    results = sorted((tmp_path / "out").rglob("result.json"))
    assert len(results) == 4
    before = json.loads(results[0].read_text())
    results[0].write_text(json.dumps({**before, "seconds": 12345.0}))
    results[1].unlink()
    code, printed = command(*arguments)
    assert code == 0, printed
    assert json.loads(results[0].read_text())["seconds"] == 12345.0 and results[1].is_file()
    code, printed = command(*arguments, "--epochs", "4")
    assert code == 1 and "holds a run with another epochs: give its options, or another --output" in printed


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ("--towers", "tf_efficientnet_lite0", "--towers tf_efficientnet_lite0: expected an image encoder, a plus sign"),
        ("--seeds", "0;1", "--seeds 0;1: expected whole numbers with commas between them"),
        ("--towers", "vgg+minilm", "no such image encoder; accepted"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, option: str, value: str, fault: str) -> None:
    code, printed = command(str(daquar(tmp_path / "walls")), "--output", str(tmp_path / "out"), option, value)
    assert code == 1 and fault in printed and not (tmp_path / "out").exists()
