"""A benchmark's rows: what was measured, how often, against which bar; as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, once per repeat; its figure is the median, which must not exceed ``bar``.

    ``detail`` has the figures behind it; ``note`` says where the measurement was less than its name promises, and then
    the bar is not met.
    """

    what: str
    unit: str
    bar: float
    repeats: Sequence[float]
    detail: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def figure(self) -> float:
        """The median of the repeats."""
        return median(self.repeats)

    @property
    def met(self) -> bool:
        """Whether all of it was measured and the bar was reached."""
        return self.figure <= self.bar and not self.note

    def as_json(self) -> dict[str, object]:
        """Everything, rounded to what can be told apart."""
        return {
            "what": self.what,
            "unit": self.unit,
            "figure": round(self.figure, 4),
            "spread": [round(min(self.repeats), 4), round(max(self.repeats), 4)],
            "repeats": [round(value, 4) for value in self.repeats],
            "bar": self.bar,
            "met": self.met,
            "detail": {name: round(value, 4) for name, value in self.detail.items()},
            "note": self.note,
        }


def table(figures: Sequence[Figure]) -> Table:
    """A row for each figure."""
    made = Table(box=None, pad_edge=False)
    for name in ("what", "figure", "spread", "bar", "met"):
        made.add_column(name, justify="left" if name in ("what", "met") else "right", no_wrap=name != "what")
    for one in figures:
        spread = f"{min(one.repeats):.3g}–{max(one.repeats):.3g} of {len(one.repeats)}"
        met = "[green]yes[/]" if one.met else "[red]no[/]"
        what = f"{one.what}\n[dim]{_details(one)}[/]" if one.detail or one.note else one.what
        made.add_row(what, f"{one.figure:.3g} {one.unit}", spread, f"≤ {one.bar:g}", met)
    return made


def _details(one: Figure) -> str:
    details = [f"{name} {value:.3g}" for name, value in one.detail.items()]
    return "; ".join([*details, *([one.note] if one.note else [])])
