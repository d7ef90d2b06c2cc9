from __future__ import annotations

import pytest
from rich.console import Console

from loadtest.figures import Figure, table


def test_a_figure_is_the_median_and_meets_its_bar_at_most() -> None:
    figure = Figure("a", "s", 2.0, [1.0, 2.0, 9.0], {"part": 0.5})
    assert figure.figure == 2.0 and figure.met and not figure.stretched
    assert not Figure("a", "s", 1.9, [1.0, 2.0, 9.0]).met
    assert figure.as_json()["spread"] == [1.0, 9.0] and figure.as_json()["direction"] == "at most"


@pytest.mark.parametrize(("value", "met", "stretched"), [(0.9, False, False), (0.95, True, False), (0.98, True, True)])
def test_a_figure_may_have_to_reach_its_bar_and_may_reach_the_one_beyond(value: float, met: bool, stretched: bool) -> None:
    figure = Figure("a", "×", 0.95, [value], stretch=0.98, at_least=True)
    assert (figure.met, figure.stretched) == (met, stretched)
    assert figure.as_json() | {"direction": "at least", "bar": 0.95, "stretch": 0.98, "met": met} == figure.as_json()


def test_a_figure_that_was_not_measured_in_full_meets_neither_bar() -> None:
    figure = Figure("a", "s", 2.0, [1.0], note="half of it", stretch=1.5)
    assert not figure.met and not figure.stretched


def test_a_figure_without_a_bar_misses_none() -> None:
    assert Figure("a", "s", None, [1.0], note="half of it").met


def test_the_table_shows_figure_spread_bars_and_verdict() -> None:
    console = Console(width=120, record=True)
    figures = [
        Figure("a", "s", 2.0, [1.0, 2.0, 9.0], {"part": 0.5}),
        Figure("b", "×", 1.0, [3.0], note="why"),
        Figure("c", "", 0.5, [0.6], stretch=0.6, at_least=True),
        Figure("d", "", None, [7.0]),
    ]
    console.print(table(figures))
    lines = console.export_text().splitlines()
    assert [line.split() for line in lines if " of " in line] == [
        ["a", "2", "s", "1–9", "of", "3", "≤", "2", "–", "yes"],
        ["b", "3", "×", "3–3", "of", "1", "≤", "1", "–", "no"],
        ["c", "0.6", "0.6–0.6", "of", "1", "≥", "0.5", "≥", "0.6", "stretch"],
        ["d", "7", "7–7", "of", "1", "–", "–", "–"],
    ]
    assert any("part 0.5" in line for line in lines) and any("why" in line for line in lines)
