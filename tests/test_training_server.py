"""Servers that are killed and stopped while they train: no job is lost, none is published twice, no process stays."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.support.server import wait_until
from tests.support.training import JOBS, QUICK, asked, events, seen
from tests.test_server import SECONDS, process, read_until


@contextmanager
def training_server(base: Path, folder: Path) -> Iterator[tuple[httpx.Client, psutil.Popen]]:
    flags = ("--base-model", str(base), "--adapters-dir", str(folder / "adapters"), "--jobs-dir", str(folder / "jobs"))
    with process(*flags, "--port", "0") as running:
        found = re.search(r"http://127\.0\.0\.1:\d+", read_until(running, "Ctrl-C"))
        assert found
        with httpx.Client(base_url=found[0], timeout=SECONDS) as client:
            yield client, running


def trainer_of(running: psutil.Popen) -> psutil.Process:
    def found() -> list[psutil.Process]:
        return [child for child in psutil.Process(running.pid).children() if "training.job" in child.cmdline()]

    wait_until(found)
    return found()[0]


def test_a_job_outlives_a_kill_and_a_stop_and_is_published_once(tiny_base: Path, tmp_path: Path) -> None:
    with training_server(tiny_base, tmp_path) as (client, running):
        job = asked(client, alias="live", options={**QUICK, "epochs": 24})
        waiting = asked(client, name="other", options={**QUICK, "epochs": 1})
        wait_until(lambda: (client.get(f"{JOBS}/{job}").json()["progress"] or {}).get("epoch", 0) >= 2, SECONDS)
        trainer = trainer_of(running)
        running.kill()
        wait_until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE)
    epoch = 2

    with training_server(tiny_base, tmp_path) as (client, running):
        resumed: list[int] = []

        def follow() -> None:
            resumed.extend(content["epoch"] for kind, _, content in events(client, job) if kind in ("progress", "metrics"))

        wait_until(lambda: client.get(f"{JOBS}/{job}").json()["state"] == "running")
        trainer, reader = trainer_of(running), threading.Thread(target=follow)
        reader.start()
        before = client.get(f"{JOBS}/{job}").json()["progress"]["step"]
        wait_until(lambda: client.get(f"{JOBS}/{job}").json()["progress"]["step"] > before, SECONDS)
        running.send_signal(signal.SIGTERM)
        reader.join(5)
        assert not reader.is_alive() and running.wait(10) == 0 and not trainer.is_running()
        assert max(resumed) > epoch

    with training_server(tiny_base, tmp_path) as (client, _):
        done = seen(client, job, "succeeded")
        assert (done["result"]["version"], done["result"]["alias"]) == (1, "live")
        seen(client, waiting, "succeeded")
        told = [(entry["action"], entry["adapter"]) for entry in client.get("/v1/audit").json()["entries"]]
        assert sorted(told) == [("publish", "mood"), ("publish", "other"), ("set", "mood")], told
        epochs = [content["epoch"] for kind, _, content in events(client, job) if kind == "metrics"]
        assert epochs == list(range(1, 25))  # each was trained once, though three servers trained it
