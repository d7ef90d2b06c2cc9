"""What every task asks of the texts that clients send."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import InvalidInput, TooLarge


def place(name: str, number: int, count: int) -> str:
    """What the client called the entry: ``text`` alone, or ``texts[2]`` among several."""
    return f"{name}s[{number}]" if count > 1 else name


def check_texts(name: str, texts: Sequence[str], max_chars: int) -> None:
    """Raise :class:`InvalidInput` for an empty text and :class:`TooLarge` for too long a one, naming it by its place."""
    for number, text in enumerate(texts):
        if not text.strip():
            raise InvalidInput(f"{place(name, number, len(texts))} is empty")
        if len(text) > max_chars:
            raise TooLarge(f"{place(name, number, len(texts))} has {len(text)} characters; at most {max_chars} are accepted")
