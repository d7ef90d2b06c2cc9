"""Slices of texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.slices import LENGTHS, slices


@pytest.mark.parametrize(
    ("text", "name", "there"),
    [
        ("so #happy today", "hashtag", True),
        ("number # 1, a#b", "hashtag", False),
        ("@user thanks", "mention", True),
        ("me@example.org", "mention", False),
        ("well done 🙂", "emoji", True),
        ("well done ☀️", "emoji", True),
        ("well done :)", "emoji", False),
        ("see https://example.org", "url", True),
        ("see http", "url", True),
        ("the httpd log", "url", False),
    ],
)
def test_what_a_text_holds(text: str, name: str, there: bool) -> None:
    assert (name in slices([text])) is there


@given(st.lists(st.text(max_size=20), max_size=40))
def test_the_thirds_hold_every_row_once_and_texts_of_one_length_together(texts: list[str]) -> None:
    found = slices(texts)
    thirds = [found.get(name, []) for name in LENGTHS]
    assert sorted(row for rows in thirds for row in rows) == list(range(len(texts)))
    sets = [{len(texts[row]) for row in rows} for rows in thirds]
    assert not sets[0] & sets[1] and not sets[1] & sets[2]
    assert all(found.values())
