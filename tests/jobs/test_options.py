"""What may be chosen over HTTP is what training takes, and no more."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from service.jobs.options import TrainingOptions
from service.jobs.progress import latest, read_on
from training.data import ReadOptions
from training.job import Reports
from training.text_model import Recipe

NOT_A_CHOICE = {"base_model", "method"}  # the server has one base, and serves LoRA


def test_every_choice_of_training_is_one_here_and_the_other_way_round() -> None:
    taken = {one.name for kind in (Recipe, ReadOptions) for one in fields(kind)}
    assert set(TrainingOptions.model_fields) == taken - NOT_A_CHOICE


def test_the_defaults_of_training_would_be_accepted_here() -> None:
    chosen = {one.name: one.default for kind in (Recipe, ReadOptions) for one in fields(kind) if one.name not in NOT_A_CHOICE}
    TrainingOptions(**chosen)


def test_reports_are_read_on_from_anywhere_and_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    assert read_on(file, 0) == [] and latest(file) == {}
    at = {"epoch": 1, "steps": 4, "loss": 0.5, "texts_per_second": 9.0}
    with Reports(file, 2) as reports:
        for step in (1, 2, 4):  # the second is too soon after the first
            reports.on_progress({**at, "step": step})
        reports.after_epoch(1, {"accuracy": 0.75})
    first, metrics = read_on(file, 0)
    assert (first.event, first.content["step"], metrics.event) == ("progress", 4, "metrics")
    assert first.content["eta_seconds"] == 0 and read_on(file, first.end) == [metrics] and read_on(file, metrics.end) == []
    assert latest(file)["metrics"] == {"accuracy": 0.75} and latest(file)["step"] == 4
    with file.open("ab") as out:
        out.write(b'{"event": "progress", "st')
    assert read_on(file, metrics.end) == []
    with Reports(file, 2) as reports:
        reports.on_progress({**at, "step": 3})
    (again,) = read_on(file, metrics.end)
    assert again.content["step"] == 3 and again.end == file.stat().st_size
    assert read_on(file, 3)[-1] == again and read_on(file, 10**9) == []
