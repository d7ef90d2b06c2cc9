from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench import ROOT, load_texts
from loadtest.machine import commit, machine, versions
from loadtest.server import ServerFailed, ServerProcess
from service.store.bundle import Bundle
from service.store.directory import DirectoryStore
from service.store.registry import Registry

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
    registry = Registry(DirectoryStore(tmp_path / "adapters"))
    for name in ("sentiment", "emotion", "vqa"):
        registry.set_alias(name, "live", registry.publish(name, bundles[name]).version)
    return tmp_path / "adapters"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.bench", "--repeats", "3", "--starts", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "COLUMNS": "200"})


def test_a_bench_measures_everything_and_changes_no_adapter(tiny_base: Path, adapters: Path, tmp_path: Path) -> None:
    before = sorted(adapters.rglob("*"))
    done = bench(
        "--adapters", adapters, "--base-model", tiny_base, "--data", tmp_path, "--output", tmp_path / "reports", "--strict"
    )
    assert (tmp_path / "reports").is_dir(), done.stdout + done.stderr
    (file,) = (tmp_path / "reports").iterdir()
    report = json.loads(file.read_text())
    assert len(report["figures"]) == ROWS and all(figure["figure"] > 0 for figure in report["figures"])
    assert [len(figure["repeats"]) for figure in report["figures"]] == [3, 3, 1, 3, 3]
    assert report["figures"][0]["note"] == "only 2 adapters are live; loaded repeatedly"
    assert done.returncode == 1  # --strict: that first figure counts as missed
    assert done.stdout.count("≤") == ROWS
    assert {"commit", "machine", "versions", "threads", "load_average"} <= set(report)
    assert sorted(adapters.rglob("*")) == before


def test_a_folder_without_adapters_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    done = bench("--adapters", tmp_path / "adapters", "--base-model", tiny_base)
    assert done.returncode == 2
    assert "no live adapter 'sentiment'" in done.stderr
