"""Training over HTTP, with real trainings of a tiny model: asked for, followed, published, refused, cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from service.routes.keys import PREDICT, READ, WRITE
from service.store.bundle import Bundle
from tests.support.keys import bearer, line, write_keys
from tests.support.problems import assert_problem
from tests.support.server import Server, wait_until
from tests.support.training import JOBS, QUICK, ask, asked, events, rows, seen

if TYPE_CHECKING:
    from tests.conftest import Start


def folder(server: Server, job: str) -> Path:
    return server.adapters.parent / "adapters-jobs" / job


def trainers() -> list[psutil.Process]:
    """The processes that train for this one."""
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "training.job" in child.cmdline()]


def states(server: Server) -> dict[str, float]:
    told = server.client.get("/metrics").text.splitlines()
    lines = [one for one in told if one.startswith("quickchange_training_jobs{")]
    return {one.split('"')[1]: float(one.split()[1]) for one in lines}


def test_a_csv_becomes_a_live_adapter_and_its_way_there_can_be_followed(start: Start) -> None:
    server = start()
    job = asked(server.client, alias="live", gate={"accuracy": 0.9}, require={"macro_f1": ">= 0.9"})
    waiting = asked(server.client, name="other")
    assert [one["id"] for one in server.client.get(JOBS).json()["jobs"]] == [waiting, job]
    first = server.client.get(JOBS, params={"limit": 1}).json()
    assert (first["jobs"][0]["id"], first["next"]) == (waiting, waiting)
    assert server.client.get(JOBS, params={"after": waiting}).json()["jobs"][0]["id"] == job
    cancelled = server.client.delete(f"{JOBS}/{waiting}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")

    followed = events(server.client, job)
    kinds = [kind for kind, _, _ in followed]
    assert kinds[0] == "state" and kinds[-1] == "end" and kinds.count("metrics") == QUICK["epochs"] and "progress" in kinds
    told = [content["state"] for kind, _, content in followed if kind == "state"]
    assert told[-1] == "succeeded" and told == sorted(told, key=["queued", "running", "publishing", "succeeded"].index)
    done = followed[-1][2]
    assert done == server.client.get(f"{JOBS}/{job}").json()
    assert (done["state"], done["error"], done["result"]["version"], done["result"]["alias"]) == ("succeeded", None, 1, "live")
    progress = done["progress"]
    assert (progress["epoch"], progress["step"]) == (QUICK["epochs"], progress["steps"])
    assert progress["texts_per_second"] > 0 and progress["metrics"]["accuracy"] > 0.9

    numbered = [(kind, place) for kind, place, _ in followed if place is not None]
    resumed = events(server.client, job, last=numbered[-3][1])
    assert [(kind, place) for kind, place, _ in resumed if place is not None] == numbered[-2:]
    assert resumed[-1] == followed[-1]

    answer = server.post("/v1/classify", {"text": "a great lovely happy day", "adapter": "mood"}).json()
    assert (answer["label"], answer["version"]) == ("good", 1)
    described = server.client.get("/v1/adapters/mood").json()["versions"][0]
    assert described["digest"] == done["result"]["digest"] and described["metrics"] == done["result"]["metrics"]
    assert server.client.get("/v1/adapters/mood/aliases/live").json()["require"] == {"macro_f1": ">= 0.9"}
    assert states(server) == {"queued": 0, "running": 0, "publishing": 0, "succeeded": 1, "failed": 0, "cancelled": 1}
    assert {file.name for file in folder(server, job).iterdir()} == {"job.json", "state.json", "progress.jsonl", "training.log"}
    for gone in (job, waiting):
        assert server.client.delete(f"{JOBS}/{gone}").status_code == 204
        assert_problem(server.client.delete(f"{JOBS}/{gone}"), 404, "not_found", gone)
        assert not folder(server, gone).exists()


def test_what_misses_the_gate_is_told_with_its_figures_and_bad_data_in_one_line(start: Start) -> None:
    server = start(max_training_jobs=2)
    options = {**QUICK, "epochs": 1}
    gated = asked(server.client, options=options, gate={"accuracy": 1.5, "wups": 0.1}, alias="live")
    alone = asked(server.client, data=b"text,label\n" + b"a,x\nb,x\n" * 20)
    failed = seen(server.client, gated, "failed")
    assert failed["error"]["code"] == "requirement_not_met"
    assert "accuracy is " in failed["error"]["detail"] and "the gate requires 1.5" in failed["error"]["detail"]
    assert "wups, which was not measured; measured: accuracy, macro_f1" in failed["error"]["detail"]
    assert failed["result"]["version"] is None and failed["result"]["metrics"]["validation"]["accuracy"] >= 0
    assert_problem(server.client.get("/v1/adapters/mood"), 404, "adapter_not_found")
    failed = seen(server.client, alone, "failed")
    assert (failed["error"]["code"], failed["result"]) == ("invalid_input", None)
    assert "data.csv" in failed["error"]["detail"] and "one label" in failed["error"]["detail"]
    assert str(server.adapters.parent) not in failed["error"]["detail"]


def test_a_running_one_is_cancelled_with_its_process_and_the_queue_has_an_end(start: Start) -> None:
    server = start(max_waiting_jobs=1)
    job = asked(server.client, options={**QUICK, "epochs": 1000})
    seen(server.client, job, "running")
    (trainer,) = trainers()
    wait_until(lambda: trainer.nice() == 19)
    assert trainer.environ()["OMP_NUM_THREADS"] == "1"
    waiting = asked(server.client)
    refused = ask(server.client)
    assert_problem(refused, 429, "overloaded", "1 trainings wait")
    assert int(refused.headers["retry-after"]) > 0
    server.client.delete(f"{JOBS}/{waiting}")
    for _ in range(2):
        cancelled = server.client.delete(f"{JOBS}/{job}")
        assert cancelled.status_code in {202, 204}
    wait_until(lambda: not trainer.is_running())
    wait_until(lambda: server.client.get(f"{JOBS}/{job}").json().get("state") in ("cancelled", None))
    assert not trainers() and not (folder(server, job) / "data.csv").exists()


def test_a_training_that_dies_without_a_word_is_begun_three_times(start: Start) -> None:
    server = start()
    job = asked(server.client)
    killed: set[int] = set()

    def is_over() -> bool:
        for trainer in trainers():
            trainer.kill()
            killed.add(trainer.pid)
        return bool(server.client.get(f"{JOBS}/{job}").json()["state"] == "failed")

    wait_until(is_over, 30)
    error = server.client.get(f"{JOBS}/{job}").json()["error"]
    assert len(killed) == 3 and error["code"] == "training_died"
    assert error["detail"] == "given up after 3 attempts: the process was killed, as happens when memory runs out"


def test_a_reader_that_leaves_is_noticed_and_there_may_be_so_many(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.routes.training_events.MOST_READERS", 2)
    server = start()
    job = asked(server.client, options={**QUICK, "epochs": 1000})
    readers = server.application.services.readers
    path = f"{JOBS}/{job}/events"
    with server.client.stream("GET", path), server.client.stream("GET", path):
        wait_until(lambda: readers.open == 2)
        assert_problem(server.client.get(path), 429, "overloaded", "2 readers")
    wait_until(lambda: readers.open == 0)
    with server.client.stream("GET", path) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: state"
        server.client.delete(f"{JOBS}/{job}")
        assert any('"state": "cancelled"' in one for one in lines)


HOSTILE: list[tuple[dict[str, Any], int, str]] = [
    ({"file": "data.exe"}, 400, "accepted: .csv, .tsv, .jsonl, .json, .parquet"),
    ({"file": "../../x"}, 400, "accepted: .csv"),
    ({"data": b""}, 400, "data is an empty file"),
    ({"name": "../x"}, 422, "adapter name '../x' is not valid"),
    ({"name": ""}, 422, "adapter name '' is not valid"),
    ({"alias": "A B"}, 422, "alias 'A B' is not valid"),
    ({"task": "visual-question-answering"}, 400, "is not trained here; accepted: text-classification"),
    ({"more": "x"}, 400, "more is not a known field; accepted: data, name, task"),
    ({"options": "{"}, 400, "options is not JSON"),
    ({"options": [1]}, 400, "options: must be a JSON object"),
    ({"options": {"rank": 4}}, 400, "rank is not a known field; accepted: r, lora_alpha"),
    ({"options": {"base_model": "/etc"}}, 400, "base_model is not a known field"),
    ({"options": {"r": 65}}, 400, "r must be at most 64, the highest rank that this server serves"),
    ({"options": {"epochs": "3"}}, 400, "epochs must be a whole number"),
    ({"options": {"epochs": 10**9}}, 400, "epochs must be at most 1000"),
    ({"options": {"learning_rate": 0}}, 400, "learning_rate must be more than 0"),
    ({"options": '{"learning_rate": NaN}'}, 400, "learning_rate"),
    ({"options": {"target_modules": "a;b"}}, 400, "target_modules"),
    ({"options": {"labels": []}}, 400, "labels must not be empty"),
    ({"require": {"accuracy": ">= live"}}, 400, "require is given without alias"),
    ({"require": {"accuracy": "<= 1"}, "alias": "live"}, 422, "is not a rule"),
    ({"require": [], "alias": "live"}, 400, "require: must be an object"),
    ({"gate": {"accuracy": "high"}}, 400, "gate: accuracy must be a number"),
    ({"gate": '{"accuracy": Infinity}'}, 400, "gate: accuracy"),
    ({"gate": {str(i): 0 for i in range(40)}}, 400, "gate: must have at most 32 entries"),
]


def test_what_makes_no_sense_is_refused_before_anything_is_kept(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start(max_training_bytes=50_000)
    for parts, status, said in HOSTILE:
        assert_problem(ask(server.client, **parts), status, "bad_request" if status == 400 else "invalid_input", said)
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        assert_problem(server.client.request(method, f"{JOBS}/..%2f..{path}"), 404, "not_found")
        assert_problem(server.client.request(method, f"{JOBS}/{'0' * 20}{path}"), 404, "not_found")
    assert_problem(server.client.post(JOBS, json={}), 415, "unsupported_media")
    assert_problem(server.client.post(JOBS, data={"name": "a"}, files={"x": b""}), 400, "bad_request", "data is required")
    assert_problem(ask(server.client, data=rows(5000)), 413, "too_large")
    server.publish("vqa", bundles["vqa"])
    assert_problem(ask(server.client, name="vqa"), 409, "version_conflict")
    assert not list((server.adapters.parent / "adapters-jobs").glob("*"))


def test_an_id_of_no_event_is_refused(start: Start) -> None:
    server = start()
    job = asked(server.client, options={**QUICK, "epochs": 1000})
    for last in ("x", "-1", "9" * 40, "١"):
        headers = {b"last-event-id": last.encode()}
        assert_problem(server.client.get(f"{JOBS}/{job}/events", headers=headers), 400, "bad_request", "last-event-id")
    server.client.delete(f"{JOBS}/{job}")
    assert [kind for kind, _, _ in events(server.client, job, last="9" * 15)][-1] == "end"


def test_where_training_is_turned_off_its_addresses_say_so(start: Start) -> None:
    server = start(max_training_jobs=0)
    calls = [ask(server.client), server.client.get(JOBS), server.client.get(f"{JOBS}/0"), server.client.delete(f"{JOBS}/0")]
    for answer in (*calls, server.client.get(f"{JOBS}/0/events")):
        assert_problem(answer, 404, "not_found", "QUICKCHANGE_MAX_TRAINING_JOBS")


def test_a_key_with_a_prefix_knows_of_its_own_jobs_alone(start: Start, tmp_path: Path) -> None:
    write_keys(
        tmp_path / "keys", line("ann-key", WRITE, READ, prefix="ann-"), line("bob-key", WRITE, READ), line("eve-key", PREDICT)
    )
    server = start(api_keys_file=tmp_path / "keys")
    ann, bob, eve = (bearer(f"{who}-key") for who in ("ann", "bob", "eve"))
    assert_problem(ask(server.client), 401, "unauthorized")
    assert_problem(ask(server.client, headers=eve), 403, "forbidden", WRITE)
    assert_problem(ask(server.client, headers=ann), 404, "adapter_not_found")
    theirs = ask(server.client, headers=bob).json()["id"]
    mine = ask(server.client, name="ann-mood", headers=ann).json()["id"]
    listed: list[httpx.Response] = [server.client.get(JOBS, headers=who) for who in (ann, bob)]
    assert [[one["id"] for one in answer.json()["jobs"]] for answer in listed] == [[mine], [mine, theirs]]
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        assert_problem(server.client.request(method, f"{JOBS}/{theirs}{path}", headers=ann), 404, "not_found")
        assert_problem(server.client.request(method, f"{JOBS}/{theirs}{path}", headers=eve), 403, "forbidden")
    for job in (mine, theirs):
        assert server.client.delete(f"{JOBS}/{job}", headers=bob).status_code == 202


def test_small_data_gets_epochs_enough_where_none_are_given(start: Start) -> None:
    server = start()
    job = asked(server.client, options={name: value for name, value in QUICK.items() if name != "epochs"})
    done = events(server.client, job)[-1][2]
    assert done["state"] == "succeeded"
    assert done["progress"]["steps"] >= 300 and done["progress"]["epochs"] > 4
