from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from loadtest.bench import main
from loadtest.machine import commit, machine, versions
from loadtest.plan import HERE, REHEARSAL, load_texts
from loadtest.plots import LOOKS
from loadtest.report import ROOT
from loadtest.server import ServerFailed, ServerProcess
from service.store.alias import Target
from service.store.bundle import Bundle
from service.store.registry import Registry
from tests.support.command import script

ROWS = 5


def test_the_machine_is_described(tmp_path: Path) -> None:
    assert machine()["cores"] and versions()["torch"].startswith("2.14")
    assert commit(ROOT) != "unknown"
    assert commit(tmp_path) == "unknown"


def test_texts_come_from_the_folder_or_are_made_up(tmp_path: Path) -> None:
    words, source = load_texts(tmp_path)
    assert next(words) and source.startswith("made up")
    (tmp_path / "val_text.txt").write_text("one\n\ntwo\n")
    words, source = load_texts(tmp_path)
    assert {next(words) for _ in range(5)} == {"one", "two"} and source.endswith(", validation")


def test_a_server_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = ServerProcess(tmp_path / "adapters", tmp_path / "log", log_level="loud")
    with pytest.raises(ServerFailed, match="QUICKCHANGE_LOG_LEVEL=loud"), broken:
        pass


@pytest.fixture
def adapters(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    registry = Registry.open(tmp_path / "adapters")
    for name in ("sentiment", "emotion", "vqa"):
        registry.set_alias(name, "live", Target.at(registry.publish(name, bundles[name])[0].version))
    return tmp_path / "adapters"


def read(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.json")
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def test_basics_measure_everything_and_change_no_adapter(tiny_base: Path, adapters: Path, tmp_path: Path) -> None:
    before = sorted(adapters.rglob("*"))
    code, said = script(
        main, "--rehearse", "--only", "basics", "--adapters", str(adapters), "--base-model", str(tiny_base),
        "--data", str(tmp_path), "--output", str(tmp_path / "reports"), "--strict",
    )  # fmt: skip
    assert (tmp_path / "reports").is_dir(), said
    report = read(tmp_path / "reports")
    assert len(report["figures"]) == ROWS and all(figure["figure"] > 0 for figure in report["figures"])
    assert [len(figure["repeats"]) for figure in report["figures"]] == [3, 3, 1, 3, 3]
    assert report["figures"][0]["note"] == "only 2 adapters are live; loaded repeatedly"
    assert code == 1  # --strict: that first figure counts as missed
    assert said.count("≤") == ROWS
    assert {"commit", "machine", "versions", "threads", "load_average"} <= set(report)
    assert sorted(adapters.rglob("*")) == before


def test_every_other_part_runs_and_its_curves_are_drawn(tiny_base: Path, adapters: Path, tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as stopped:
        main(
            "forward,peft,http,overload,lifecycle,vqa,training-jobs", adapters, base_model=str(tiny_base), repeats=1,
            rehearse=True, output=tmp_path / "reports",
        )  # fmt: skip
    assert stopped.value.exit_code == 0
    report = read(tmp_path / "reports")
    figures: dict[str, list[dict[str, Any]]] = {}
    for figure in report["figures"]:
        figures.setdefault(figure["part"], []).append(figure)
    kinds, live, kept = 2, len(REHEARSAL.live), 1  # of adapters; numbers of them; the use of the machine
    assert len(figures["forward"]) == len(HERE) * (kinds * live + kept)
    assert len([figure for figure in figures["forward"] if figure["bar"] == 0.95]) == len(HERE) * live
    assert [(figure["bar"], figure["direction"]) for figure in figures["peft"]] == [(10.0, "at least"), (2.0, "at least")]
    assert [figure["bar"] for figure in figures["http"]] == [0.6, 0.6, 20.0, None]
    assert [figure["bar"] for figure in figures["overload"]] == [2.0, 50.0, 0, 1.02, 2.0]
    assert figures["overload"][2]["figure"] == 0
    assert [figure["bar"] for figure in figures["lifecycle"]] == [50, 200, None, 500, 2.0]
    assert [(figure["bar"], figure["stretch"]) for figure in figures["vqa"]] == [(10.0, 5.0), (1.3, 1.1)]
    assert all(min(figure["repeats"]) > 0 for figure in figures["vqa"])
    (trained,) = figures["training-jobs"]
    assert trained["bar"] == 2.0 and not trained["note"] and trained["detail"]["trained texts/s"] > 0
    assert {file.stem for file in (tmp_path / "reports").glob("*.png")} == set(LOOKS) == set(report["curves"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"only": "everything"}, "--only everything: expected some of basics, forward"),
        ({"dtypes": "fp8"}, f"--dtypes fp8: expected some of {', '.join(HERE)}"),
        ({"shapes": "GPT"}, "--shapes GPT: expected some of TinyBERT"),
    ],
)
def test_what_is_not_there_to_be_measured_is_one_line(
    arguments: dict[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as stopped:
        main(**arguments)  # type: ignore[arg-type]  # texts, all of them
    assert stopped.value.exit_code == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(("part", "name"), [("basics", "sentiment"), ("vqa", "vqa")])
def test_a_folder_without_adapters_is_one_line(
    part: str, name: str, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapters").mkdir()
    with pytest.raises(typer.Exit) as stopped:
        main(part, tmp_path / "adapters", base_model=str(tiny_base), rehearse=True)
    assert stopped.value.exit_code == 2
    assert capsys.readouterr().err.splitlines() == [f"error: no live adapter '{name}'; name a folder of adapters by --adapters"]
