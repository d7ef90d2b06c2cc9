"""The server as a process: what it prints, how it ends, and its one line when it cannot start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.store.bundle import Bundle
from tests.support.server import wait_until
from tests.support.traffic import LONG
from training.bundles import write_bundle

SERVE = [sys.executable, "-c", "from service.cli import app; app()", "serve"]
SECONDS = 60


def environment(**variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("QUICKCHANGE_")}
    return {**ours, "COLUMNS": "160", "PYTHONPATH": os.pathsep.join(sys.path), **variables}


@contextmanager
def process(*flags: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*SERVE, *flags], env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def read_until(running: subprocess.Popen[str], last: str) -> str:
    """What the process prints, up to the line that contains ``last``."""
    assert running.stdout
    told = ""
    for line in running.stdout:
        told += line
        if last in line:
            break
    return told


def test_it_says_what_it_serves_and_sigterm_lets_requests_in_flight_finish(
    tiny_base: Path, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    for version, name in ((1, "irony"), (2, "sentiment")):
        write_bundle(bundles[name], tmp_path / "sentiment" / str(version))
    (tmp_path / "sentiment" / "registry.json").write_text('{"aliases": {"live": 2}}')
    flags = ("--base-model", str(tiny_base), "--adapters-dir", str(tmp_path), "--port", "0", "--max-text-chars", "100000")
    with process(*flags) as running:
        told = read_until(running, "Ctrl-C")
        found = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert found
        url = found[0]
        for word in (str(tiny_base), f"{url}/schema", "sentiment", "live → 2", "negative, neutral, positive"):
            assert word in told
        for path in ("/v1/sentiment", "/v1/classify", "/v1/vqa"):
            assert f"curl {url}{path} " in told
        _drains(running, url)
        assert running.wait(SECONDS) == 0
        assert running.stderr and running.stderr.read() == ""


def _drains(running: subprocess.Popen[str], url: str) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/v1/classify", json=LONG, timeout=SECONDS))

    with httpx.Client(base_url=url, timeout=SECONDS) as client:
        assert client.get("/health/ready").status_code == 200
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: 'rows_in_work{pipeline="text"} 60.0' in client.get("/metrics").text)
        running.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/health/ready").status_code == 503, 1)
        assert client.post("/v1/sentiment", json={"text": "a"}).json()["code"] == "unavailable"
        assert not answers
        thread.join()
    assert answers[0].status_code == 200 and len(answers[0].json()["results"]) == 60


def test_a_missing_model_ends_the_process_with_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with process("--port", "0", "--base-model", "nobody/no-such-model", "--adapters-dir", str(tmp_path)) as running:
        told, complained = running.communicate(timeout=SECONDS)
    assert running.returncode == 1
    assert "Traceback" not in told + complained
    assert complained.count("\n") == 1 and complained.startswith("error: QUICKCHANGE_BASE_MODEL=nobody/no-such-model: "), (
        complained
    )


def cannot_start(*flags: str, **variables: str) -> str:
    """The one line on stderr of a server that cannot start."""
    result = CliRunner(env={"COLUMNS": "160", **variables}).invoke(app, ["serve", "--port", "0", *flags])
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: "), result.stderr
    return result.stderr.removeprefix("error: ").strip()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = cannot_start("--port", port, "--adapters-dir", str(tmp_path))
    assert said.startswith(f"cannot listen on 127.0.0.1:{port}: ") and "QUICKCHANGE_PORT" in said


@pytest.mark.parametrize(
    ("flags", "variables", "said"),
    [
        (["--max-lora-rank", "0"], {}, "QUICKCHANGE_MAX_LORA_RANK=0: "),
        (["--max-lora-bytes", "2 parsecs"], {}, "QUICKCHANGE_MAX_LORA_BYTES=2 parsecs: must be a number of bytes, such as 512MB"),
        (["--log-level", "loud"], {}, "QUICKCHANGE_LOG_LEVEL=loud: "),
        ([], {"QUICKCHANGE_REQUEST_TIMEOUT": "soon"}, "QUICKCHANGE_REQUEST_TIMEOUT=soon: "),
        ([], {"QUICKCHANGE_MAX_BATCH_TOKENS": "-5"}, "QUICKCHANGE_MAX_BATCH_TOKENS=-5: "),
        (["--host", "0.0.0.0"], {}, "QUICKCHANGE_HOST=0.0.0.0 is reachable from outside"),
        (["--api-keys-file", "no-such-file"], {}, "QUICKCHANGE_API_KEYS_FILE=no-such-file: "),
        (["--base-model", "./no-such-folder"], {}, "QUICKCHANGE_BASE_MODEL=./no-such-folder: "),
        (["--image-encoder", "eye"], {}, "QUICKCHANGE_IMAGE_ENCODER=eye: "),
        (["--image-encoder", "resnet50"], {}, "QUICKCHANGE_IMAGE_ENCODER=resnet50: no weights; put "),
        (["--sentence-encoder", "nobody/no-such-model"], {}, "QUICKCHANGE_SENTENCE_ENCODER=nobody/no-such-model: "),
        (["--device", "tpu9"], {}, "QUICKCHANGE_DEVICE=tpu9: "),
    ],
)
def test_a_bad_setting_is_named_with_its_value(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], variables: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    start = ["--base-model", str(tiny_base), "--adapters-dir", str(tmp_path / "adapters")]
    assert cannot_start(*start, *flags, **variables).startswith(said)


def test_an_adapters_folder_that_cannot_be_one_is_named(tiny_base: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        said = cannot_start("--base-model", str(tiny_base), "--adapters-dir", str(folder))
        assert said.startswith(f"QUICKCHANGE_ADAPTERS_DIR={folder}: ")
