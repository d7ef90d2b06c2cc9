"""A benchmark's rows: what was measured, how often, against which bar; as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, once per repeat; its figure is the median.

    It must not exceed ``bar``, or with ``at_least`` must reach it; ``stretch`` is a bar beyond. Without ``bar`` it is printed
    beside the others. ``detail`` has the figures behind it; ``note`` says where the measurement was less than its name
    promises, and then the bar is not met.
    """

    what: str
    unit: str
    bar: float | None
    repeats: Sequence[float]
    detail: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    stretch: float | None = None
    at_least: bool = False

    @property
    def figure(self) -> float:
        """The median of the repeats."""
        return median(self.repeats)

    @property
    def met(self) -> bool:
        """Whether all of it was measured and the bar, if there is one, was reached."""
        return self.bar is None or self._reaches(self.bar)

    @property
    def stretched(self) -> bool:
        """Whether the bar beyond the bar was reached as well."""
        return self.stretch is not None and self._reaches(self.stretch)

    def _reaches(self, bar: float) -> bool:
        return not self.note and (self.figure >= bar if self.at_least else self.figure <= bar)

    def as_json(self) -> dict[str, object]:
        """Everything, rounded to what can be told apart."""
        return {
            "what": self.what,
            "unit": self.unit,
            "figure": rounded(self.figure),
            "spread": [rounded(min(self.repeats)), rounded(max(self.repeats))],
            "repeats": [rounded(value) for value in self.repeats],
            "direction": "at least" if self.at_least else "at most",
            "bar": self.bar,
            "stretch": self.stretch,
            "met": self.met,
            "stretch_met": self.stretched,
            "detail": {name: rounded(value) for name, value in self.detail.items()},
            "note": self.note,
        }


def rounded(value: float) -> float | None:
    """What can be told apart, for JSON: which has no word for what is not a number."""
    return round(value, 4) if math.isfinite(value) else None


def table(figures: Sequence[Figure]) -> Table:
    """A row for each figure."""
    made = Table(box=None, pad_edge=False)
    for name in ("what", "figure", "spread", "bar", "stretch", "met"):
        made.add_column(name, justify="left" if name in ("what", "met") else "right", no_wrap=name != "what")
    for one in figures:
        spread = f"{min(one.repeats):.3g}–{max(one.repeats):.3g} of {len(one.repeats)}"
        what = f"{one.what}\n[dim]{_details(one)}[/]" if one.detail or one.note else one.what
        figure = f"{one.figure:.3g} {one.unit}".rstrip()
        made.add_row(what, figure, spread, _bar(one, one.bar), _bar(one, one.stretch), _verdict(one))
    return made


def _bar(one: Figure, bar: float | None) -> str:
    return "–" if bar is None else f"{'≥' if one.at_least else '≤'} {bar:g}"


def _verdict(one: Figure) -> str:
    if one.bar is None:
        return "–"
    return "[green]stretch[/]" if one.stretched else "[green]yes[/]" if one.met else "[red]no[/]"


def _details(one: Figure) -> str:
    details = [f"{name} {value:.4g}" for name, value in one.detail.items()]
    return "; ".join([*details, *([one.note] if one.note else [])])
