"""A bucket whose server fails, loses answers, stalls, breaks off, or is not there at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import AdapterNotFound, Unavailable
from service.store.bucket import Bucket, Patience
from service.store.files import ObjectStore
from service.store.layout import MANIFEST
from service.store.selector import Ref
from tests.store.test_files import ONE, TWO, bundle, paths
from tests.support.s3 import BUCKET, S3, SECRET, Door, Fault, seconds

PATIENCE = Patience(connect=0.5, request=0.4, retrying=0.4, retries=1)


@pytest.fixture
def door(s3: S3) -> Iterator[Door]:
    with Door(s3.port) as door:
        yield door


@pytest.fixture
def store(door: Door, tmp_path: Path) -> ObjectStore:
    """A store behind the door, with one version in it."""
    store = ObjectStore(Bucket(BUCKET, tmp_path.name, door.url, PATIENCE))
    store.publish(ONE, bundle())
    return store


def calls(store: ObjectStore) -> list[Callable[[], object]]:
    return [
        store.names, store.check, lambda: store.versions("mood"), lambda: store.manifest(ONE), lambda: store.read(ONE),
        lambda: store.state("mood"), lambda: store.save_state("mood", {}), lambda: store.publish(TWO, bundle()),
        lambda: store.delete(ONE),
    ]  # fmt: skip


def always(fault: Fault) -> Callable[[str, str], Fault | None]:
    return lambda _method, _path: fault


def first_of(method: str, fault: Fault) -> Callable[[str, str], Fault | None]:
    """The fault for the first request to each path by that method."""
    seen: set[str] = set()

    def chosen(asked: str, path: str) -> Fault | None:
        if asked != method or path in seen:
            return None
        seen.add(path)
        return fault

    return chosen


@pytest.mark.parametrize("fault", ["fail", "stranger"])
def test_a_server_that_only_fails_is_unavailable_whatever_is_asked(store: ObjectStore, door: Door, fault: Fault) -> None:
    door.fault = always(fault)
    for call in calls(store):
        with pytest.raises(Unavailable, match="ask again in a moment"):
            call()
    door.fault = lambda _method, _path: None
    assert store.versions("mood") == [1] and store.read(ONE).weights == bundle().weights


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_one_failure_is_not_noticed(store: ObjectStore, door: Door, method: str) -> None:
    door.fault = first_of(method, "fail")
    store.publish(TWO, bundle(b"two"))
    store.save_state("mood", {"deleted": []})
    assert store.read(TWO).weights == b"two" and store.versions("mood") == [1, 2] and store.state("mood") == {"deleted": []}
    store.delete(ONE)
    assert set(store.objects.files("mood")) == {*paths(TWO), "mood/registry.json"}


def test_a_file_written_without_our_hearing_of_it_is_ours(store: ObjectStore, door: Door) -> None:
    door.fault = first_of("PUT", "lose")
    store.publish(TWO, bundle(b"two"))
    assert store.read(TWO).weights == b"two"
    assert len([line for line in door.seen if line.startswith("PUT") and line.endswith(f"/2/{MANIFEST}")]) == 2


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_server_that_stalls_holds_nobody_for_long(store: ObjectStore, door: Door, number: int) -> None:
    door.fault = always("stall")

    def ask() -> None:
        with pytest.raises(Unavailable):
            calls(store)[number]()

    assert seconds(ask) < 2 * (PATIENCE.request + PATIENCE.retrying)


def test_an_answer_that_breaks_off_is_no_fault_of_the_adapter(store: ObjectStore, door: Door) -> None:
    store.save_state("mood", {})
    door.fault = always("truncate")
    for read in (store.names, lambda: store.versions("mood"), lambda: store.manifest(ONE), lambda: store.state("mood")):
        with pytest.raises(Unavailable, match="cannot be read now"):
            read()
    door.fault = lambda _method, path: "truncate" if path.endswith(".safetensors") else None
    with pytest.raises(Unavailable, match="the files of adapter mood:1 cannot be read now"):
        store.read(ONE)


def test_a_server_that_is_gone_is_unavailable_soon(s3: S3) -> None:
    with Door(s3.port) as closed:
        url = closed.url
    store = ObjectStore(Bucket(BUCKET, "gone", url, PATIENCE))

    def ask() -> None:
        for call in calls(store):
            with pytest.raises(Unavailable):
                call()

    assert seconds(ask) < 9 * 2 * (PATIENCE.request + PATIENCE.retrying)


def test_a_bucket_that_is_not_there_is_not_an_empty_one(s3: S3) -> None:
    store = ObjectStore(Bucket("no-such-bucket", "", s3.url, PATIENCE))
    for call in calls(store):
        with pytest.raises(Unavailable):
            call()


def test_what_is_logged_is_one_line_without_a_secret(store: ObjectStore, door: Door, caplog: pytest.LogCaptureFixture) -> None:
    door.fault = always("fail")
    with pytest.raises(Unavailable):
        store.read(ONE)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.store.files"]
    assert line.startswith("the files of adapter mood:1 cannot be read: ") and "500" in line
    assert "\n" not in line and SECRET not in line


def test_prefixes_share_a_bucket_without_seeing_each_other(store: ObjectStore, s3: S3, tmp_path: Path) -> None:
    assert store.names() == ["mood"]
    for prefix in (f"{tmp_path.name}/below", f"{tmp_path.name}-2"):
        other = ObjectStore(Bucket(BUCKET, prefix, s3.url, PATIENCE))
        assert other.names() == []
        with pytest.raises(AdapterNotFound):
            other.read(ONE)
    assert ObjectStore(Bucket(BUCKET, f"{tmp_path.name}/", s3.url, PATIENCE)).names() == ["mood"]


def test_a_listing_of_many_pages_is_complete(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(Bucket(BUCKET, tmp_path.name, s3.url, PATIENCE))
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    for name in ("a", "b", "c", "d", "e"):
        store.publish(Ref(name, 1), bundle())
    store.publish(Ref("c", 2), bundle())
    assert store.names() == ["a", "b", "c", "d", "e"] and store.versions("c") == [1, 2]
    store.delete(Ref("c", 1))
    assert store.versions("c") == [2] and set(store.objects.files("c")) == paths(Ref("c", 2))
