"""Parts of a data set that an adapter may read better or worse than the rest, told from the texts alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

PATTERNS = {
    "hashtag": re.compile(r"(?<!\w)#\w"),
    "mention": re.compile(r"(?<!\w)@\w"),
    "emoji": re.compile("[\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"),
    "url": re.compile(r"https?://|(?<!\w)www\.|(?<!\w)http(?!\w)", re.IGNORECASE),  # TweetEval leaves "http" of an address
}
LENGTHS = ("short", "medium", "long")


def slices(texts: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each slice, by name; one without rows is left out.

    ``short``, ``medium`` and ``long`` are the thirds by number of characters, texts of one length staying together;
    ``hashtag``, ``mention``, ``emoji`` and ``url`` are the texts that hold one.
    """
    found = {name: [row for row, text in enumerate(texts) if pattern.search(text)] for name, pattern in PATTERNS.items()}
    return {name: rows for name, rows in {**_thirds(texts), **found}.items() if rows}


def _thirds(texts: Sequence[str]) -> dict[str, list[int]]:
    lengths = sorted(map(len, texts))
    bounds = [lengths[len(lengths) * third // len(LENGTHS)] for third in (1, 2)] if lengths else []
    thirds: dict[str, list[int]] = {name: [] for name in LENGTHS}
    for row, text in enumerate(texts):
        thirds[LENGTHS[sum(len(text) >= bound for bound in bounds)]].append(row)
    return thirds
