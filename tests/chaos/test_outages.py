"""A full disk and an ill S3 for a short while; tests/routes/test_servers.py has the databases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.store.bundle import Bundle
from tests.chaos.full_disk import full_disk
from tests.chaos.outages import await_status, ill_s3
from tests.chaos.subject import Subject, Trial, is_same, tried
from tests.support.s3 import BUCKET, S3, Door, variables

if TYPE_CHECKING:
    from tests.conftest import Start


def test_with_a_full_disk_nothing_is_registered_and_predictions_go_on(
    start: Start, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    with Subject(start().url, os.getpid(), bundles["irony"], tmp_path / "adapters") as subject:
        rows = full_disk(subject, tmp_path / "adapters", 1)
    assert [row for row in rows if row.lost] == []
    assert all(" × 507" in row.detail for row in rows) and all(row.tried > 3 for row in rows)


def test_with_an_ill_s3_nothing_is_registered_and_predictions_go_on(
    start: Start, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3() as s3, Door(s3.port) as door:
        for name, value in variables(door.url).items():
            monkeypatch.setenv(name, value)
        with Subject(start(store_url=f"s3://{BUCKET}/chaos").url, os.getpid(), bundles["irony"]) as subject:
            rows = [ill_s3(subject, door, fault, 1) for fault in ("fail", "lose", "truncate")]
    assert [row for row in rows if row.lost] == []
    assert " × 503" in rows[0].detail and " × 503" in rows[2].detail


def test_an_answer_is_known_by_its_version_and_its_scores() -> None:
    expected: dict[str, Any] = {"version": 1, "scores": {"no": 0.25, "yes": 0.75}}
    assert is_same({"version": 1, "scores": {"yes": 0.7500001, "no": 0.25}}, expected)
    for other in (
        {"version": 2, "scores": expected["scores"]},
        {"version": 1, "scores": {"no": 0.26, "yes": 0.74}},
        {"code": "x"},
    ):
        assert not is_same(other, expected)


def test_what_goes_wrong_is_counted(start: Start, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    with Subject(start().url, os.getpid(), bundles["irony"], tmp_path / "adapters") as subject:

        def act(trial: Trial) -> str:
            trial.expect(subject.upload(), 507)
            subject.published.add(99)
            (tmp_path / "adapters/mood/77").mkdir()
            (tmp_path / "adapters/mood/77/manifest.json").write_text("{")
            return await_status(trial, "degraded", 0.05)

        row = tried(subject, "nothing at all", act)
    assert row.lost == 4
    for told in ("a change: 201", "ready after 0.05 s, not degraded", "versions [1, 2, 3], confirmed were [1, 2, 3, 99]"):
        assert told in row.detail
