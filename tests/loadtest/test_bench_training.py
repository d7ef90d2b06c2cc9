"""The benchmark of training, rehearsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from loadtest.bench import main
from loadtest.bench_training import figures
from tests.training.words import problem


def tweeteval(folder: Path) -> Path:
    """The made-up problem as TweetEval lays out its files."""
    data = problem(120)
    folder.mkdir()
    (folder / "mapping.txt").write_text("0\tbad\n1\tgood\n", "utf-8")
    for name, split in (("train", data.splits["train"]), ("val", data.splits["validation"])):
        (folder / f"{name}_text.txt").write_text("\n".join(split.texts) + "\n", "utf-8")
        (folder / f"{name}_labels.txt").write_text("\n".join(map(str, split.labels)) + "\n", "utf-8")
    return folder


def test_both_trainers_are_timed_and_scored(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "adapters").mkdir()
    with pytest.raises(typer.Exit) as stopped:
        main(
            "training", tmp_path / "adapters", tweeteval(tmp_path / "words"), base_model=str(tiny_base), repeats=1, rehearse=True,
            output=tmp_path / "reports",
        )  # fmt: skip
    assert stopped.value.exit_code == 0
    (file,) = (tmp_path / "reports").glob("*.json")
    faster, lost = json.loads(file.read_text("utf-8"))["figures"]
    assert (faster["bar"], faster["direction"], lost["bar"], lost["direction"]) == (1.5, "at least", 0.5, "at most")
    assert faster["figure"] > 0 and all(rate > 0 for rate in faster["detail"].values())
    assert all(0 <= share <= 100 for share in lost["detail"].values())


def test_the_rows_compare_rates_by_repeat_and_accuracies_in_the_mean() -> None:
    faster, lost = figures([(300.0, 70.0), (240.0, 72.0)], [(100.0, 71.0), (120.0, 71.5)])
    assert list(faster.repeats) == [3.0, 2.0] and faster.met
    assert lost.figure == pytest.approx(0.25) and lost.met


def test_without_labelled_data_it_is_one_line(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapters").mkdir()
    with pytest.raises(typer.Exit) as stopped:
        main("training", tmp_path / "adapters", tmp_path / "none", base_model=str(tiny_base), rehearse=True)
    assert stopped.value.exit_code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: training needs labelled data, and there is none by --data")
