"""The parts of the measurements whose results can be told beforehand."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from loadtest.bases import SHAPES
from loadtest.bench_forward import token_batches
from loadtest.bench_overload import Flood, arrivals, back_to_normal, figures, settled
from loadtest.bench_peft import grouped, padded
from loadtest.outcome import OK, REFUSED, Outcome
from loadtest.plan import zipf
from loadtest.plots import LOOKS, draw
from loadtest.timing import in_turns
from service.models.tokenizer import TextTokenizer


def test_the_arithmetic_of_a_row_is_counted_layer_by_layer() -> None:
    shape, tokens = SHAPES["toy"], 3
    h, wide = shape.hidden, shape.intermediate
    first = tokens * (4 * h * h + 2 * h * wide) + 2 * tokens**2 * h  # every token
    last = tokens * 2 * h * h + 2 * tokens * h + 2 * h * h + 2 * h * wide  # all keys and values, and the first token
    assert shape.flops([tokens]) == 2 * (first + last)
    assert shape.flops([tokens, tokens]) == 2 * shape.flops([tokens])


def test_batches_take_texts_as_they_come_up_to_the_budget(tiny_base: Path) -> None:
    texts = ["one two", "three", "four five six seven", "eight"]
    batches = list(token_batches(texts, TextTokenizer(str(tiny_base)), 8))
    assert [[len(ids) for ids in batch] for batch in batches] == [[4, 3], [6], [3]]


def test_zipf_asks_for_the_first_most_often() -> None:
    found = Counter(islice(zipf(3, Random(0)), 6000))
    assert found[0] / found[1] == pytest.approx(2, rel=0.1) and found[0] / found[2] == pytest.approx(3, rel=0.15)


def test_peft_gets_each_adapters_rows_padded_among_themselves() -> None:
    (first, one), (second, other) = grouped([[1, 2, 3], [4], [5, 6]], ["a", "b", "a"])
    assert (first, second) == ("a", "b")
    assert one["input_ids"].tolist() == [[1, 2, 3], [5, 6, 0]] and one["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert other["input_ids"].tolist() == padded([[4]])["input_ids"].tolist() == [[4]]


def test_calls_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert "".join(order) == "baabba"
    assert set(times) == {"a", "b"} and all(seconds < 0.1 for seconds in times.values())


def test_arrivals_are_as_many_as_asked_for_and_in_order() -> None:
    times = arrivals(100.0, 5.0, 20.0, Random(0))
    assert len(times) == pytest.approx(2000, rel=0.1)
    assert times == sorted(times) and times[0] >= 5.0 and times[-1] < 25.0


def after(bad: float, status: int = REFUSED) -> Outcome:
    """Ten seconds of a request each hundredth, answered in 10 ms, of which those due before ``bad`` have another status."""
    due = [i / 100 for i in range(1000)]
    return Outcome(due, [0.01] * 1000, [status if at < bad else OK for at in due], seconds=10.0)


@pytest.mark.parametrize(("bad", "seconds"), [(0.0, 0.0), (0.1, 0.5), (1.2, 1.5), (10.0, 10.0)])
def test_normal_begins_with_the_first_two_good_windows(bad: float, seconds: float) -> None:
    assert back_to_normal(after(bad), p99=20.0) == seconds


def test_slow_answers_are_not_normal() -> None:
    assert back_to_normal(after(0.0), p99=5.0) == 10.0


def flood_of(took: float, status: int) -> Flood:
    steady = Outcome([i / 100 for i in range(1000)], [0.01] * 1000, [OK] * 1000, seconds=10.0)
    flooded = Outcome(steady.due, [took] * 1000, [OK if i % 3 == 0 else status for i in range(1000)], seconds=10.0)
    return Flood(100.0, steady, flooded, steady, [100, 101, 101, 102], client=0.1)


def test_a_flood_is_judged_by_who_is_answered_and_who_is_refused() -> None:
    slower, late, broken, flat, again = figures("x", [flood_of(0.015, REFUSED)] * 3)
    assert slower.figure == pytest.approx(1.5) and late.figure == pytest.approx(15.0) and broken.figure == 0
    assert flat.figure == pytest.approx(102 / 101) and again.figure == 0
    assert all(figure.met for figure in (slower, late, broken, flat, again))


def test_a_flood_that_nobody_refused_was_none() -> None:
    _, late, broken, *_ = figures("x", [flood_of(0.015, 503)] * 3)
    assert late.note and not late.met and late.as_json()["figure"] is None
    assert broken.figure > 600 and not broken.met


def test_memory_counts_from_when_buffers_are_filled() -> None:
    assert settled([1, 5, 6, 7]) == [5, 6, 7]


def test_every_plot_is_drawn_even_with_a_value_that_could_not_be_measured(tmp_path: Path) -> None:
    curves = ", ".join(f'"{name}": {{"x": [1, 1000], "y": {{"a": [0.5, null], "b": [0.9, 1.0]}}}}' for name in LOOKS)
    (tmp_path / "report.json").write_text(f'{{"curves": {{{curves}}}}}')
    files = draw(tmp_path / "report.json", tmp_path / "plots")
    assert {file.stem for file in files} == set(LOOKS)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
