"""The load test as a user starts it: a process of its own (locust patches the standard library), a real server."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.store.bundle import Bundle
from tests.support.server import Server
from training.bundles import write_bundle

KINDS = {"sentiment", "classify", "vqa", "swap publish", "swap alias", "swap answer", "swap delete"}


def loadtest(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def loaded(start: Callable[..., Server], bundles: dict[str, Bundle]) -> Server:
    server = start()
    for name in ("sentiment", "emotion", "vqa"):
        assert server.publish(name, bundles[name]).status_code == 201
    return server


@pytest.fixture
def template(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    write_bundle(bundles["irony"], tmp_path / "template")
    return tmp_path / "template"


def test_a_run_reports_every_kind_and_leaves_no_adapter(loaded: Server, template: Path, tmp_path: Path) -> None:
    options = ["--host", loaded.url, "--swap-bundle", template, "--output", tmp_path / "reports", "--duration", 5, "--users", 6]
    bars = ["--min-rate", 1, "--p99", "sentiment=60000", "--p99", "classify=60000", "--p99", "vqa=60000", "--p99", "swap=60000"]
    done = loadtest(*options, *bars)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every threshold held" in done.stdout
    (folder,) = (tmp_path / "reports").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert {endpoint["kind"] for endpoint in summary["endpoints"] if endpoint["requests"]} == KINDS
    assert summary["total"]["failures"] == 0 and summary["errors"] == [] and summary["crashes"] == []
    assert all(endpoint["server"]["inference_p50"] > 0 for endpoint in summary["endpoints"] if endpoint["kind"] == "sentiment")
    assert "<html" in (folder / "report.html").read_text().lower()
    assert {row["Name"] for row in csv.DictReader((folder / "locust_stats.csv").read_text().splitlines())} == KINDS | {
        "Aggregated"
    }
    left = loaded.client.get("/v1/adapters/loadtest-swap").json()
    assert left["versions"] == [] and left["aliases"] == {}
    assert loaded.errors.lines == []


def test_missed_thresholds_are_named_and_fail(loaded: Server, template: Path, tmp_path: Path) -> None:
    options = ["--host", loaded.url, "--swap-bundle", template, "--output", tmp_path / "reports", "--duration", 3, "--users", 2]
    done = loadtest(*options, "--min-rate", 100_000, "--p99", "sentiment=0.1", "--mix", "1,0,0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the threshold is 100000" in done.stdout
    assert "sentiment: p99" in done.stdout and "the threshold is 0.1 ms" in done.stdout
    assert "no vqa request" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no server answers at http://127.0.0.1:1; start one with 'make serve', or name it by --host"),
        (["--mix", "1"], "--mix 1: expected a weight for each of sentiment, classify, vqa"),
        (["--swap-bundle", "nowhere"], "nowhere: no bundle there"),
    ],
)
def test_what_cannot_be_run_is_one_line(template: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    done = loadtest("--host", "http://127.0.0.1:1", "--swap-bundle", template, "--output", tmp_path / "reports", *arguments)
    assert done.returncode == 2
    assert line in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "reports").exists()
