"""Texts to send: made up from neutral words, as long as tweets are. Nothing here was written by a person online."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

# Tweets have 27 tokens on average and 49 at the 95th percentile. A log-normal with these parameters has both once the
# two special tokens are added, since nearly every word below is one token.
MU, SIGMA = 3.11, 0.45
FEWEST, MOST = 1, 120

PHRASES = [  # opening, then over and over: subject, verb, object, link
    (
        "today",
        "this morning",
        "last night",
        "on monday",
        "in the office",
        "at the station",
        "after lunch",
        "this week",
        "just now",
    ),
    ("the train", "our team", "my neighbour", "the new phone", "the weather", "a friend", "the museum", "this book", "the park"),
    ("arrived near", "was about", "looks like", "opened beside", "sold", "moved to", "talked about", "waited for", "changed"),
    ("the river", "a small table", "three tickets", "the blue door", "some coffee", "a long list", "an old map", "my bicycle"),
    ("and", "but", "because", "while", "then", "when", "so", "or", "@user", "!", "?", ". . .", "5 pm", "2 days"),
]
WHAT = ("is on the table", "is left of the lamp", "colour is the wall", "is under the window", "is on the bed")
HOW_MANY = ("chairs", "lamps", "pictures", "doors", "books")
QUESTIONS = [*(f"what {thing}" for thing in WHAT), *(f"how many {things} are there" for things in HOW_MANY)]


def texts(random: Random) -> Iterator[str]:
    """Texts without end, each of its own length."""
    while True:
        yield text(random, length(random))


def length(random: Random) -> int:
    """The tokens that a text is to have, without the two special ones."""
    return min(MOST, max(FEWEST, round(random.lognormvariate(MU, SIGMA))))


def text(random: Random, tokens: int) -> str:
    """About so many words, in phrases of neutral ones."""
    opening, *others = PHRASES
    words = random.choice(opening).split()
    while len(words) < tokens:
        words += [word for phrases in others for word in random.choice(phrases).split()]
    return " ".join(words[:tokens])


def question(random: Random) -> str:
    """A question about a room."""
    return random.choice(QUESTIONS)
