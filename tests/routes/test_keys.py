"""The keys file's lines: what they may say, what is refused, and that no refusal shows a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import InvalidInput, StartupError
from service.routes.keys import DELETE, PREDICT, WRITE, ApiKey, hashed, key_line, new_key, parse_line, read_keys
from service.routes.keys_file import KeysFile
from tests.support.keys import line, write_keys

HASH = "0" * 64


def test_a_line_is_read_as_it_was_written() -> None:
    options = {"prefix": "acme-", "rate": "0.5", "concurrency": "8"}
    written = key_line("ann", "the-key", frozenset({WRITE, PREDICT}), options)
    assert written == f"ann {hashed('the-key')} adapters:write,predict prefix=acme- rate=0.5 concurrency=8"
    key = parse_line(written)
    assert key == ApiKey("ann", hashed("the-key"), frozenset({WRITE, PREDICT}), "acme-", 0.5, 8)
    assert key.id == hashed("the-key")[:8]


def test_lines_without_options_are_as_before() -> None:
    assert parse_line(f"  ann\t{HASH}  adapters:write,adapters:delete ") == ApiKey("ann", HASH, frozenset({WRITE, DELETE}))


def test_keys_are_long_and_all_different() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100 and min(len(key) for key in keys) >= 43


@pytest.mark.parametrize(
    "content",
    [
        "ann secret adapters:write", "ann", f"ann {'0' * 63}X adapters:write", f"ann {HASH}", f"ann {HASH} secret",
        f"ann {HASH} predict secret", f"ann {HASH} predict prefix=", f"ann {HASH} predict prefix=Secret",
        f"ann {HASH} predict prefix=a prefix=b", f"ann {HASH} predict rate=0", f"ann {HASH} predict rate=-1",
        f"ann {HASH} predict rate=0.0", f"ann {HASH} predict rate=nan", f"ann {HASH} predict rate=1e9",
        f"ann {HASH} predict concurrency=0", f"ann {HASH} predict concurrency=1.5", f"ann {HASH} predict concurrency=١",
        f"bob {HASH[:-1]}1 predict",
    ],
)  # fmt: skip
def test_a_line_that_is_not_right_is_named_by_its_number_and_nothing_of_it_is_shown(tmp_path: Path, content: str) -> None:
    file = write_keys(tmp_path / "keys", f"bob {HASH[:-1]}1 adapters:write\n", "# a comment\n", content)
    with pytest.raises(StartupError, match=r"QUICKCHANGE_API_KEYS_FILE=.*line 3 is not 'owner sha256 scope,scope") as caught:
        read_keys(file)
    assert "secret" not in str(caught.value).lower() and HASH not in str(caught.value)


@pytest.mark.parametrize("content", ["", "# only a comment\n\n"])
def test_a_file_without_a_key_ends_start_up(tmp_path: Path, content: str) -> None:
    with pytest.raises(StartupError, match="no key in it"):
        KeysFile(write_keys(tmp_path / "keys", content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for file in (tmp_path / "nothing-here", tmp_path, tmp_path / "bytes"):
        with pytest.raises(StartupError, match=f"QUICKCHANGE_API_KEYS_FILE={file}: no readable file there"):
            KeysFile(file)


@pytest.mark.parametrize("owner", ["", "two words", "#ann", "a\nb", "a\x1b[2Jb", "a" * 81, "0123abcd"])
def test_an_owner_is_one_word_that_is_no_id(owner: str) -> None:
    with pytest.raises(InvalidInput, match=r"^owner .* is not valid; accepted: one word"):
        key_line(owner, "key", frozenset({WRITE}))


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ({"prefix": "Acme"}, "what adapter names may begin with"), ({"prefix": "a b"}, "what adapter names may begin with"),
        ({"rate": "fast"}, "requests a second"), ({"rate": "0"}, "requests a second"),
        ({"concurrency": "-1"}, "requests at a time"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_valid_is_named_with_its_value(options: dict[str, str], accepted: str) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(InvalidInput, match=f"^{name} '{value}' is not valid; accepted: {accepted}"):
        line("ann-key", PREDICT, **options)


def test_a_scope_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match=r"^scope 'adapters:fly' is not known; accepted: predict, adapters:read"):
        line("ann-key", "adapters:fly")
    with pytest.raises(InvalidInput, match="scope '' is not known"):
        line("ann-key", "")
