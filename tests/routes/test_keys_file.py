"""The keys file while it is used: changes are seen, faults change nothing, and edits are whole or not at all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.errors import InvalidInput, StartupError
from service.routes.keys import PREDICT, READ, WRITE, hashed, read_keys
from service.routes.keys_file import LOOK_SECONDS, KeysFile, add_key, revoke_keys
from tests.support.keys import bearer, line, write_keys
from tests.support.problems import assert_problem
from tests.support.server import wait_until

if TYPE_CHECKING:
    from tests.conftest import Start

ANN, BOB = "ann-key-5tYq", "bob-key-8wEr"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys", line(ANN, WRITE), "# a comment\n", "\n", line(BOB, PREDICT, READ))


def test_a_running_server_refuses_a_revoked_key_and_takes_a_new_one_within_a_second(start: Start, file: Path) -> None:
    public = start(host="0.0.0.0", api_keys_file=file)

    def status(key: str, path: str) -> int:
        return public.client.get(path, headers=bearer(key)).status_code

    assert status(BOB, "/v1/adapters") == 200
    revoke_keys(file, hashed(BOB)[:8])
    wait_until(lambda: status(BOB, "/v1/adapters") == 401, 1)
    assert_problem(public.post("/v1/sentiment", {"text": "a"}, headers=bearer(BOB)), 401, "unauthorized")
    key, _ = add_key(file, "eve", frozenset({READ}))
    wait_until(lambda: status(key, "/v1/adapters") == 200, 1)


def test_revoking_the_last_key_opens_nothing(start: Start, file: Path) -> None:
    locked = start(api_keys_file=file)
    assert locked.client.get("/v1/adapters").status_code == 401
    for owner in ("ann", "bob"):
        revoke_keys(file, owner)
    wait_until(lambda: locked.client.get("/v1/adapters", headers=bearer(BOB)).status_code == 401, 1)
    for method, path in (("GET", "/v1/adapters"), ("DELETE", "/v1/adapters/x/versions/1")):
        assert_problem(locked.client.request(method, path, headers=bearer(ANN)), 401, "unauthorized")
    assert_problem(locked.post("/v1/sentiment", {"text": "a"}), 401, "unauthorized")


def test_a_file_that_breaks_leaves_its_keys_in_force_and_a_line_in_the_log(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched, written = KeysFile(file), file.read_text()
    before = watched.current()
    faults: list[Callable[[], object]] = [lambda: file.write_text(f"{written}eve {ANN} adapters:write\n"), file.unlink]
    for number, break_it in enumerate(faults, 1):
        break_it()
        wait_until(lambda number=number: watched.current() and len(caplog.records) == number, 1)
    end = time.monotonic() + 1.5 * LOOK_SECONDS
    while time.monotonic() < end:
        assert watched.current() is before
        time.sleep(0.01)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(faults)
    assert caplog.text.count("the keys read before stay in force") == len(faults) and ANN not in caplog.text
    file.write_text(written.replace("bob", "rob"))
    wait_until(lambda: [key.owner for key in watched.current()] == ["ann", "rob"], 1)


def test_an_edit_that_keeps_size_and_time_is_seen_by_its_file_number(file: Path) -> None:
    watched, stat = KeysFile(file), file.stat()
    other = write_keys(file.with_name("other"), file.read_text().replace("bob", "rob"))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    wait_until(lambda: [key.owner for key in watched.current()] == ["ann", "rob"], 1)


def test_what_an_edit_does_not_concern_stays_as_it_was(file: Path) -> None:
    lines = file.read_text().splitlines()
    key, made = add_key(file, "eve", frozenset({WRITE}), prefix="eve-", rate="5")
    assert file.read_text().splitlines()[:-1] == lines and made.prefix == "eve-"
    assert key not in file.read_text() and read_keys(file)[-1] == made and made.sha256 == hashed(key)
    assert revoke_keys(file, made.id) == [made]
    assert [gone.owner for gone in revoke_keys(file, "ann")] == ["ann"]
    assert file.read_text().splitlines() == lines[1:]


def test_an_edited_file_is_its_owners_alone_and_a_link_to_it_stays(file: Path) -> None:
    file.chmod(0o644)
    link = file.with_name("link")
    link.symlink_to(file)
    add_key(link, "eve", frozenset({WRITE}))
    assert link.is_symlink() and len(read_keys(file)) == 3
    assert file.stat().st_mode & 0o777 == 0o600
    fresh = file.with_name("fresh")
    add_key(fresh, "eve", frozenset({WRITE}))
    assert fresh.stat().st_mode & 0o777 == 0o600


def test_an_edited_file_stays_its_owners(file: Path) -> None:
    owner = (10001, 10002) if os.geteuid() == 0 else (os.geteuid(), os.getegid())  # only root gives files away
    os.chown(file, *owner)
    add_key(file, "eve", frozenset({WRITE}))
    assert (file.stat().st_uid, file.stat().st_gid) == owner


def test_a_refused_edit_changes_nothing_and_leaves_nothing_behind(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(InvalidInput, match=r"^no key 'eve' in .*accepted: an id or owner of \w{8} \(ann\), \w{8} \(bob\)"):
        revoke_keys(file, "eve")
    with pytest.raises(InvalidInput, match="owner 'two words'"):
        add_key(file, "two words", frozenset({WRITE}))
    assert file.read_bytes() == before
    file.write_bytes(before + b"broken\n")
    for edit in (lambda: add_key(file, "eve", frozenset({WRITE})), lambda: revoke_keys(file, "ann")):
        with pytest.raises(StartupError, match="line 5 is not"):
            edit()
    assert file.read_bytes() == before + b"broken\n"
    assert [path.name for path in file.parent.iterdir()] == ["keys"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "no-such-folder" / "keys", tmp_path / "file" / "keys", tmp_path):
        with pytest.raises(StartupError, match=f"QUICKCHANGE_API_KEYS_FILE={place}: this user cannot read and replace"):
            add_key(place, "eve", frozenset({WRITE}))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_edits_at_the_same_time_all_count(file: Path) -> None:
    owners = [f"owner{number}" for number in range(12)]
    threads = [threading.Thread(target=add_key, args=(file, owner, frozenset({WRITE}))) for owner in owners]
    threads.append(threading.Thread(target=revoke_keys, args=(file, "ann")))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(key.owner for key in read_keys(file)) == sorted(["bob", *owners])
