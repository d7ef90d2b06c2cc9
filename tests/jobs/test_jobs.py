"""Jobs in a folder: whole or not there, in order, one owner at a time, and never more than are to be kept."""

from __future__ import annotations

import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.errors import NotFound, Overloaded, StoreFull, Unavailable
from service.jobs import jobs as module
from service.jobs.folder import JobsFolder
from service.jobs.job import CANCELLED, QUEUED, RUNNING, SUCCEEDED, Order
from service.jobs.jobs import Jobs


def order(name: str = "mood", **parts: Any) -> Order:
    given = {"task": "text-classification", "source": "a.csv", "data": "data.csv", "base_model": "minilm", "options": {}}
    return Order(name=name, who="ann", created=datetime.now(UTC), **{**given, **parts})


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(JobsFolder(tmp_path / "runs" / "jobs"), 3)


def test_a_job_is_on_the_disk_before_its_id_is_known(jobs: Jobs) -> None:
    assert not jobs.own() and not jobs.folder.root.exists()
    job = jobs.submit(order(options={"r": 4}), b"text,label\n")
    assert (jobs.folder.place(job.id) / "data.csv").read_bytes() == b"text,label\n"
    jobs.folder.release()
    assert Jobs(JobsFolder(jobs.folder.root), 3).get(job.id) == job
    assert job.order.options == {"r": 4} and job.status.state == QUEUED


def test_jobs_are_begun_in_the_order_they_came_and_only_so_many_wait(jobs: Jobs) -> None:
    ids = [jobs.submit(order(), b"").id for _ in range(3)]
    assert ids == sorted(ids)
    with pytest.raises(Overloaded, match="3 trainings wait"):
        jobs.submit(order(), b"")
    claimed = [jobs.claim() for _ in range(4)]
    assert [job and job.id for job in claimed] == [*ids, None]
    assert {job.status.state for job in claimed if job} == {RUNNING} and claimed[0] and claimed[0].status.attempts == 1
    assert jobs.counts()[RUNNING] == 3 and jobs.counts()[QUEUED] == 0


def test_pages_have_the_newest_first_and_only_what_a_prefix_may_see(jobs: Jobs) -> None:
    ids = [jobs.submit(order(name), b"").id for name in ("a-1", "b-1", "a-2")]
    assert [[job.id for job in jobs.page(2)[0]], jobs.page(2)[1]] == [[ids[2], ids[1]], ids[1]]
    assert [job.id for job in jobs.page(2, ids[1])[0]] == [ids[0]]
    assert [job.order.name for job in jobs.page(9, prefix="a-")[0]] == ["a-2", "a-1"]
    with pytest.raises(NotFound):
        jobs.get(ids[1], "a-")


def test_one_process_at_a_time_owns_the_folder_and_another_takes_over(jobs: Jobs) -> None:
    job = jobs.submit(order(), b"")
    other = Jobs(JobsFolder(jobs.folder.root), 3)
    assert not other.own() and other.get(job.id) == job
    for change in (lambda: other.submit(order(), b""), lambda: other.cancel(job.id)):
        with pytest.raises(Unavailable, match="another server"):
            change()
    jobs.claim()
    assert not other.own() and other.get(job.id).status.state == RUNNING
    (jobs.folder.root / ".incoming-0").mkdir()
    (jobs.folder.root / ".leaving-0").mkdir()
    jobs.folder.release()
    assert other.own()
    assert {path.name for path in jobs.folder.root.iterdir()} == {".lock", job.id}


def test_what_waits_is_cancelled_at_once_what_runs_is_marked_and_what_is_over_goes(jobs: Jobs) -> None:
    running, waiting = (jobs.submit(order(), b"x").id for _ in range(2))
    jobs.claim()
    first = jobs.cancel(waiting)
    assert first and first.status.state == CANCELLED and not (jobs.folder.place(waiting) / "data.csv").exists()
    assert jobs.cancel(waiting) is None and not jobs.folder.place(waiting).exists()
    for _ in range(2):
        marked = jobs.cancel(running)
        assert marked and marked.status.state == RUNNING and marked.status.cancelled
    jobs.folder.release()
    assert Jobs(JobsFolder(jobs.folder.root), 3).get(running).status.cancelled


def test_the_oldest_of_those_that_are_over_go_and_no_other(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    first = jobs.submit(order(), b"").id
    ids = []
    for _ in range(3):
        ids.append(jobs.submit(order(), b"").id)
        jobs.end(ids[-1], SUCCEEDED)
    assert [job.id for job in jobs.page(9)[0]] == [ids[2], ids[1], first]
    assert {path.name for path in jobs.folder.root.iterdir()} == {".lock", first, *ids[1:]}


def test_a_disk_that_is_full_keeps_nothing_half(jobs: Jobs) -> None:
    job = jobs.submit(order(), b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StoreFull):
            jobs.submit(order(), bytes(200))
        with pytest.raises(StoreFull):
            jobs.claim()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in jobs.folder.root.iterdir()} == {".lock", job.id} and jobs.get(job.id) == job
    assert Jobs(JobsFolder(jobs.folder.root), 3).get(job.id) == job


def test_a_folder_that_is_no_job_is_left_alone(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    job = jobs.submit(order(), b"")
    damaged = jobs.submit(order(), b"")
    (jobs.folder.place(damaged.id) / "job.json").write_text('{"name": 3')
    (jobs.folder.root / "notes").mkdir()
    jobs.folder.release()
    found = Jobs(JobsFolder(jobs.folder.root), 3)
    assert found.own() and [one.id for one in found.page(9)[0]] == [job.id]
    assert (jobs.folder.root / "notes").is_dir() and f"{damaged.id} cannot be read" in caplog.text


def test_where_no_folder_can_be_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        Jobs(JobsFolder(tmp_path / "file" / "jobs"), 3).submit(order(), b"")
