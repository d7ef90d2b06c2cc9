"""How much of everything a benchmark measures, and what its parts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random

import torch

from loadtest.bases import SHAPES, write_base
from loadtest.figures import Figure
from loadtest.peak import SIZES
from loadtest.texts import texts
from service.models.linear import DTYPES, FAITHFUL, Dtype, computes_in
from service.settings import Settings

# What is measured on this processor: last what it would serve in, the fastest that keeps every answer.
HERE: tuple[Dtype, ...] = tuple(
    dtype for dtype in sorted(DTYPES, key=FAITHFUL.__contains__) if computes_in(dtype, torch.device("cpu"))
)
BATCH_TOKENS: int = Settings.model_fields["max_batch_tokens"].default


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the measurements; the bars are for the defaults.

    ``live`` counts the adapters that rows choose from; ``rounds`` are the fewest interleaved pairs a repeat; ``block`` is the
    seconds of one closed-loop measurement; ``steady``, ``flood`` and ``after`` are those of the overload's three phases;
    ``loads`` are the offered loads of the sweep over the capacity, each for ``step`` seconds; ``starts`` of a server are timed;
    ``images`` are asked about in a repeat; ``squares`` are the sizes of the products that tell the machine's best rate;
    ``rows`` are trained on.
    """

    shapes: Sequence[str] = ("TinyBERT", "MiniLM", "RoBERTa")
    served: Sequence[str] = ("MiniLM", "TinyBERT")
    live: Sequence[int] = (1, 8, 64, 1000)
    tenants: int = 64
    tokens: int = BATCH_TOKENS
    rounds: int = 3
    block: float = 8.0
    steady: float = 20.0
    flood: float = 60.0
    after: float = 6.0
    loads: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0)
    step: float = 6.0
    starts: int = 3
    images: int = 30
    squares: Sequence[int] = SIZES
    rows: int = 6400
    rehearsal: bool = False


REHEARSAL = Plan(
    shapes=("toy",), served=("toy",), live=(1, 4), tenants=4, tokens=128, rounds=1, block=0.5,
    steady=0.4, flood=1.2, after=1.0, loads=(0.5, 2.0), step=0.3, starts=1, images=3, squares=(64,), rows=64, rehearsal=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    """A plot's lines: ``y`` has a list for each line, as long as ``x``."""

    x: Sequence[float]
    y: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of the benchmark found: its figures, and curves by the name of their plot."""

    figures: Sequence[Figure]
    curves: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts of a run share.

    ``adapters`` is a copy of the folder to serve, ``scratch`` a folder to write to, ``data`` where texts come from;
    forwards are measured in each of ``dtypes``; ``say`` tells whoever watches what is going on.
    """

    adapters: Path
    scratch: Path
    data: Path
    base_model: str
    dtypes: Sequence[Dtype]
    repeats: int
    plan: Plan
    say: Callable[[str], None]

    @property
    def dtype(self) -> Dtype:
        """The dtype of all that is measured in one alone."""
        return self.dtypes[-1]

    def base(self, shape: str) -> Path:
        """The folder of a base model of this shape, written when first asked for."""
        folder = self.scratch / "bases" / shape
        return folder if folder.is_dir() else write_base(SHAPES[shape], folder)

    def texts(self, seed: int = 0) -> Iterator[str]:
        """Texts without end; another seed gives another order."""
        return load_texts(self.data, seed)[0]


def load_texts(data: Path, seed: int = 0) -> tuple[Iterator[str], str]:
    """Texts without end, shuffled from ``data`` where it is there, and a word on where they come from."""
    file = data / "val_text.txt"
    if not file.is_file():
        return texts(Random(seed)), "made up, as long as tweets are"
    lines = [line.strip() for line in file.read_text("utf-8").split("\n") if line.strip()]
    Random(seed).shuffle(lines)
    return cycle(lines), f"{data.parent.name}/{data.name}, validation"


def zipf(count: int, random: Random) -> Iterator[int]:
    """Places from 0 up to ``count``, chosen by Zipf's law with exponent 1, without end."""
    weights = [1 / place for place in range(1, count + 1)]
    while True:
        yield from random.choices(range(count), weights, k=1000)
